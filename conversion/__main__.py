"""``python -m conversion synthesize CONFIG DIR``: random weights of a published size, in the hub's layout."""

import pathlib
import sys

import numpy as np

from conversion.vocabulary import write_tokenizer
from conversion.write import FILE_DTYPES, initial, write_folder
from npgemma.command.arguments import BAD_INPUT, Parser
from npgemma.config import PUBLISHED
from npgemma.errors import InputError


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = Parser(prog="python -m conversion", description="Make checkpoint folders.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "synthesize",
        help="write random weights of a published size in the hub's layout, with a tokenizer of the same shape",
    )
    command.add_argument("config", metavar="CONFIG", choices=PUBLISHED, help=", ".join(PUBLISHED))
    command.add_argument("folder", metavar="DIR", type=pathlib.Path, help="folder to write")
    command.add_argument("--dtype", choices=FILE_DTYPES, default="bfloat16", help="of the file")
    command.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        synthesize(options.config, options.folder, options.dtype, options.seed)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped; the folder is not complete", file=sys.stderr)
        return 130
    return 0


def synthesize(name, folder, dtype="bfloat16", seed=0):
    """Write a checkpoint of a published size with random weights and a usable tokenizer.

    Parameters
    ----------
    name : str
        One of `npgemma.config.PUBLISHED`.
    folder : pathlib.Path
    dtype : str
        Of the file.
    seed : int
    """
    if seed < 0:
        raise InputError(f"the seed should be 0 or more, found {seed}")
    config, randomness = PUBLISHED[name], np.random.default_rng(seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"cannot make the folder '{folder}': {problem.strerror}") from None
    # The project's own source is a text that is always at hand.
    sentences = [
        line for file in sorted(pathlib.Path(__file__).parent.glob("*.py")) for line in file.read_text().split("\n")
    ]
    pieces = write_tokenizer(folder / "tokenizer.model", sentences, text_pieces=256000)
    assert pieces == config.image_token, f"{pieces} pieces, but the image's id is {config.image_token}"
    write_folder(folder, config, lambda leaf: initial(leaf, randomness), dtype)


if __name__ == "__main__":
    sys.exit(main())
