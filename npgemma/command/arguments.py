"""Arguments that several commands share, and how their values are read."""

import argparse
import difflib
import importlib
import os
import sys

import npgemma
from npgemma.command import BAD_INPUT, COMMANDS, DEFAULT
from npgemma.command.inputs import IMAGE_ENDINGS, with_piped_prompt
from npgemma.fast.dtypes import DTYPES
from npgemma.files.foreign import shown
from npgemma.files.images import MAX_PIXELS

# What other programs call these dtypes.
OTHER_NAMES = {"bf16": "bfloat16", "fp32": "float32", "float": "float32", "fp64": "float64", "double": "float64"}
FLOAT16 = ("float16", "fp16", "half")
PROMPTS = """\
prompts that PaliGemma was trained on (mix checkpoints know all of them, others those of their task):
  caption en            describe the image, in a language of your choice
  answer en QUESTION    answer a question
  ocr                   read the text
  detect cat ; dog      boxes around things
  segment cat           boxes and masks
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence that guesses what was meant."""

    def parse_args(self, args=None, namespace=None):
        """Return the options, with what is piped in; end if a word is none of them, and say what could be meant."""
        options, others = self.parse_known_args(args, namespace)
        if others:
            self.error(f"'{others[0]}' is no option: {self._meant(others[0])}")
        return with_piped_prompt(options)

    def error(self, message):
        """Print the sentence and end."""
        self.exit(BAD_INPUT, f"error: {shown(' '.join(message.split()))}: see {self.prog} --help\n")

    def _meant(self, word):
        """Return what a word that is not an option could mean."""
        if word.startswith("-"):
            known = [name for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
            return f"did you mean {near[0]}?" if near else "check its name"
        if word.lower().endswith(IMAGE_ENDINGS) or os.path.isfile(word):
            return f"did you mean --image {word}?"
        if os.path.isdir(word):
            return f"did you mean --checkpoint {word}?"
        near = difflib.get_close_matches(word, COMMANDS, n=1)
        return f"did you mean the command {near[0]}?" if near else f"did you mean --prompt '{word}'?"


def program():
    """Return how the program was started."""
    name = os.path.basename(sys.argv[0] or "")
    return name if name in ("cli.py", "npgemma") else "python -m npgemma"


def parser_of(command, named=True):
    """Return the parser of one command; its help is that of the program unless the command line began with its name."""
    name = command.__name__.rpartition(".")[2]
    parser = Parser(
        prog=f"{program()} {name}" if named else program(),
        description=command.SUMMARY,
        epilog=None if named else _overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"npgemma {npgemma.__version__}")
    parser.add_argument(
        "--checkpoint", "--model", "--model_path", metavar="DIR",
        help="folder with a model's files as Hugging Face's hub has them: config.json, *.safetensors, the tokenizer "
        "(default: the small model of drawn shapes that comes with npgemma)",
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="config.json of an npz file of an unpublished size")
    parser.add_argument("--tokenizer", metavar="FILE", help="tokenizer.model or .json (default: the checkpoint's)")
    parser.add_argument("--base", metavar="DIR", help="checkpoint that an adapter changes (default: the one beside it)")
    parser.add_argument("--json", action="store_true", help="print JSON: one object for each image, or one report")
    command.add_arguments(parser)
    return parser


def _overview():
    """Return the end of the program's help: its commands, three examples, and the prompts."""
    summaries = {name: importlib.import_module(f"npgemma.command.{name}").SUMMARY for name in COMMANDS}
    lines = ["commands, each with a --help of its own:"]
    lines += [f"  {name:11} {summary}{' (the default)' * (name == DEFAULT)}" for name, summary in summaries.items()]
    lines += [
        "",
        "examples:",
        f"  {program()}",
        f'  {program()} --image photo.jpg --prompt "detect cat ; dog" --checkpoint DIR --annotate boxes.png',
        f"  {program()} inspect --checkpoint DIR",
    ]
    return "\n".join([*lines, "", PROMPTS])


class _Prompts(argparse.Action):
    """Keeps the last prompt, and a list of all."""

    def __call__(self, parser, options, values, option_string=None):
        """Take a prompt."""
        options.prompt, options.prompts = values, [*options.prompts, values]


def add_question(parser, prompt="caption en", described=None):
    """Add the image and prompt arguments; the help describes the default prompt by ``described``, or else quotes it."""
    parser.add_argument(
        "--image", "--image_file_path", nargs="+", metavar="FILE",
        help="images: files, folders, quoted patterns (\"pics/*.jpg\", \"pics/**/*.jpg\"), @list.txt (a path on each "
        "line, relative to the current folder), or - for stdin (default: the example image)",
    )  # fmt: skip
    parser.add_argument(
        "--images-per-prompt", type=positive, default=1, metavar="N",
        help="ask each prompt about N images together, if the checkpoint was trained on several (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--resize", choices=("bicubic", "bilinear"),
        help="filter that resizes images; big_vision's is bilinear (default: the checkpoint's own, mostly bicubic)",
    )  # fmt: skip
    parser.add_argument(
        "--max-pixels", type=positive, default=MAX_PIXELS, metavar="N",
        help="refuse images that have more pixels or take as long to decode; the default takes up to ten seconds and "
        "three gigabytes (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(prompts=[])
    parser.add_argument(
        "--prompt", action=_Prompts, default=prompt, metavar="TEXT",
        help=f"what to do, or - for a prompt from stdin (default: {described or prompt})",
    )  # fmt: skip


def add_backend(parser):
    """Add the backend, dtype and device arguments."""
    parser.add_argument("--backend", choices=("numpy", "torch"), default="numpy")
    parser.add_argument(
        "--dtype",
        type=dtype,
        default="float32",
        metavar="DTYPE",
        help=f"type of the weights and of the arithmetic: {', '.join(DTYPES)}; with bfloat16 and int8 weights NumPy "
        "calculates in float32 (default: %(default)s)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where torch runs (default: cpu)")
    # For compatibility: other ports default to the GPU and have this flag to prevent it; this one defaults to the CPU.
    parser.add_argument(
        "--only_cpu", nargs="?", const=True, default=False, type=truth, dest="only_cpu", help=argparse.SUPPRESS
    )


def add_static(parser):
    """Add the option of static shapes."""
    parser.add_argument(
        "--static",
        action="store_true",
        help="let torch decode in arrays of fixed sizes: on CUDA each token is faster then, but the first answer waits "
        "a minute until the step is compiled",
    )


def add_sampling(parser, max_new_tokens):
    """Add the sampling arguments: the fields of `npgemma.machinery.sampling.Sampling`."""
    parser.add_argument(
        "--max-new-tokens",
        "--max-tokens",
        "--max_tokens_to_generate",
        type=int,
        default=max_new_tokens,
        metavar="N",
        help="the longest answer, in tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--do-sample", "--do_sample", nargs="?", const=True, default=False, type=truth, metavar="BOOL",
        help="draw each token by its probability instead of taking the most probable one",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T",
        help="divide the logits by T before a token is drawn; 0 takes the most probable token (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--top-k", "--top_k", type=int, metavar="K", help="draw among the K most probable tokens")
    parser.add_argument(
        "--top-p", "--top_p", type=float, default=1.0, metavar="P",
        help="draw among the fewest most probable tokens whose probabilities together reach P",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, metavar="S",
        help="start of the random numbers: the same seed, the same answer; several answers take S, S + 1, ... in turn",
    )  # fmt: skip


def dtype(word):
    """Read the name of a dtype."""
    if word in DTYPES:
        return word
    if word in OTHER_NAMES:
        raise argparse.ArgumentTypeError(f"'{word}' is called {OTHER_NAMES[word]} here")
    if word in FLOAT16:
        raise argparse.ArgumentTypeError(
            "float16 ends at 65504, which the residual stream of a Gemma can pass: use bfloat16, which takes as much "
            "memory (float16 files are read with every dtype)"
        )
    raise argparse.ArgumentTypeError(f"should be one of {', '.join(DTYPES)}, found '{word}'")


def positive(word):
    """Read a whole number above 0."""
    if not word.isdecimal() or len(word) > 12 or int(word) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number above 0, found '{shown(word, 40)}'")
    return int(word)


def mistake(word):
    """Read the id of a known mistake."""
    from npgemma.porting.mistakes import MISTAKES

    if word in MISTAKES:
        return word
    near = difflib.get_close_matches(word, MISTAKES, n=1)
    meant = f"did you mean {near[0]}?" if near else "diagnose --list names them"
    raise argparse.ArgumentTypeError(f"'{word}' is no known mistake: {meant}")


def truth(word):
    """Read a truth value as the small ports' launch scripts write it."""
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[word.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"should be True or False, found '{word}'") from None
