"""Arguments that several commands share, and how their words are read."""

import argparse

from npgemma.command import BAD_INPUT, COMMANDS, DEFAULT
from npgemma.fast.dtypes import DTYPES


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def error(self, message):
        """Print the sentence and end."""
        self.exit(BAD_INPUT, f"error: {' '.join(message.split())}: see {self.prog} --help\n")


def parser_of(command):
    """Return the parser of one command.

    Parameters
    ----------
    command : module
        Of `npgemma.command`, with a ``SUMMARY`` and a function ``add_arguments``.

    Returns
    -------
    Parser
    """
    name = command.__name__.rpartition(".")[2]
    others = f" Other commands: {', '.join(COMMANDS[1:])}." if name == DEFAULT else ""
    prog = "cli.py" if name == DEFAULT else f"cli.py {name}"
    parser = Parser(prog=prog, description=command.SUMMARY + others, allow_abbrev=False)
    parser.add_argument(
        "--checkpoint", "--model_path", metavar="DIR", help="folder in the hub's layout (default: the embedded one)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object for each image or report")
    command.add_arguments(parser)
    return parser


def add_question(parser):
    """Add the image and prompt arguments."""
    parser.add_argument("--image", "--image_file_path", nargs="+", metavar="FILE", help="images (default: the example)")
    parser.add_argument(
        "--images-per-prompt", type=positive, default=1, metavar="N",
        help="ask about N images at once, in order, as checkpoints fine-tuned on several expect (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--prompt", default="caption en", metavar="TEXT", help="default: %(default)s")


def add_backend(parser):
    """Add the backend, dtype and device arguments."""
    parser.add_argument("--backend", choices=("numpy", "torch"), default="numpy")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="of weights and arithmetic; from bfloat16 and int8 weights NumPy calculates in float32 (default: "
        "%(default)s)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the torch backend")
    # For compatibility: other ports default to the GPU and have this flag to prevent it; this one defaults to the CPU.
    parser.add_argument(
        "--only_cpu", nargs="?", const=True, default=False, type=truth, dest="only_cpu", help=argparse.SUPPRESS
    )


def add_static(parser):
    """Add the option of static shapes."""
    parser.add_argument(
        "--static",
        action="store_true",
        help="torch decodes with static shapes: on CUDA the step is compiled, which takes a minute, and captured",
    )


def add_sampling(parser, max_new_tokens):
    """Add the sampling arguments: the fields of `npgemma.sampling.Sampling`."""
    parser.add_argument(
        "--max-new-tokens",
        "--max-tokens",
        "--max_tokens_to_generate",
        type=int,
        default=max_new_tokens,
        metavar="N",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--do-sample", "--do_sample", nargs="?", const=True, default=False, type=truth, metavar="BOOL",
        help="draw tokens by probability instead of taking the most probable",
    )  # fmt: skip
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="default: %(default)s")
    parser.add_argument("--top-k", "--top_k", type=int, metavar="K", help="draw among the K most probable tokens")
    parser.add_argument(
        "--top-p", "--top_p", type=float, default=1.0, metavar="P",
        help="draw among the fewest most probable tokens whose probabilities add up to P",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="S", help="of the drawing; the same seed gives the same answer")


def positive(word):
    """Read a whole number above 0."""
    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number above 0, found '{word}'")
    return int(word)


def truth(word):
    """Read a truth value as the small ports' launch scripts write it."""
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[word.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"should be True or False, found '{word}'") from None
