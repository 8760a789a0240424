"""Arguments of the project's commands."""

import argparse

from npgemma.config import PUBLISHED

BAD_INPUT = 2


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def error(self, message):
        """Print the sentence and end."""
        self.exit(BAD_INPUT, f"error: {' '.join(message.split())}: see {self.prog} --help\n")


def parser_of(command):
    """Return the parser of one command of ``cli.py``."""
    about = {
        "generate": "Answer a prompt about pictures. Other commands: trace, parity, inspect, bench.",
        "trace": "Write every named array of an answer to a safetensors file.",
        "parity": "Run both backends, whatever --backend says, on one input; exit with 1 past a bound.",
        "inspect": "Show a checkpoint's sizes and tensors without loading it.",
        "bench": "Measure a model's speed beside the limits of this machine.",
    }
    name = "cli.py" if command == "generate" else f"cli.py {command}"
    parser = Parser(prog=name, description=about[command], allow_abbrev=False)
    parser.set_defaults(command=command)
    parser.add_argument(
        "--checkpoint", "--model_path", metavar="DIR", help="folder in the hub's layout (default: the embedded one)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object for each picture or report")
    if command == "inspect":
        return parser
    if command == "bench":
        add_bench_options(parser)
        return parser
    add_model_options(parser)
    add_generation_options(parser, max_new_tokens=100 if command == "generate" else 8)
    if command == "generate":
        parser.add_argument("--annotate", metavar="FILE", help="picture to write, with the answer's boxes and masks")
        parser.add_argument("--mask-dir", metavar="DIR", help="folder to write the answer's masks to, as pictures")
    if command == "trace":
        parser.add_argument("--out", metavar="FILE", required=True, help="safetensors file to write")
        parser.add_argument(
            "--only", metavar="PATTERN", default="*", help="keep names that match, such as '*/block.3/*'"
        )
    return parser


def add_bench_options(parser):
    """Add what says what is measured."""
    parser.add_argument(
        "--size",
        metavar="NAME",
        choices=PUBLISHED,
        help=f"not a checkpoint but stand-in weights: {', '.join(PUBLISHED)}",
    )
    parser.add_argument(
        "--batches", type=positive, nargs="+", default=[1, 4, 16], metavar="B", help="prompts at once (default: 1 4 16)"
    )
    parser.add_argument("--tokens", type=positive, default=8, metavar="N", help="timed in each (default: %(default)s)")
    add_backend_options(parser)


def add_model_options(parser):
    """Add what says which model runs on what."""
    parser.add_argument(
        "--image", "--image_file_path", nargs="+", metavar="FILE", help="pictures (default: the example)"
    )
    parser.add_argument("--prompt", default="caption en", metavar="TEXT", help="default: %(default)s")
    add_backend_options(parser)
    # The small ports' switch: they take a GPU unless told not to, we only when told to.
    parser.add_argument(
        "--only_cpu", nargs="?", const=True, default=False, type=truth, dest="only_cpu", help=argparse.SUPPRESS
    )


def add_backend_options(parser):
    """Add what says by what it is calculated."""
    parser.add_argument("--backend", choices=("numpy", "torch"), default="numpy")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64", "bfloat16", "int8"),
        default="float32",
        help="of weights and arithmetic; from bfloat16 and int8 weights NumPy calculates in float32 (default: "
        "%(default)s)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the torch backend")
    if parser.get_default("command") in ("generate", "bench"):
        parser.add_argument(
            "--static",
            action="store_true",
            help="torch decodes without changing shapes: on CUDA compiled, a minute, and captured",
        )


def add_generation_options(parser, max_new_tokens):
    """Add what says how tokens are chosen."""
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
    parser.add_argument(
        "--top-p", "--top_p", type=float, default=1.0, metavar="P", help="keep the fewest tokens that reach P"
    )
    parser.add_argument("--top-k", "--top_k", type=int, metavar="K", help="keep the K most probable tokens")
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
