"""``python -m conversion SRC DST`` converts a checkpoint; with ``synthesize CONFIG DIR`` it makes one up."""

import pathlib
import sys
from functools import partial

import numpy as np

from conversion.convert import convert
from conversion.source import Source
from conversion.tiny import TINY
from conversion.vocabulary import LOCATIONS, SEGMENTS, WORDS, write_tokenizer
from conversion.write import FILE_DTYPES, initial, write_folder
from npgemma.command import STOPPED, guarded
from npgemma.command.arguments import Parser
from npgemma.command.prepare import print_notes
from npgemma.command.progress import Progress
from npgemma.config import PUBLISHED
from npgemma.errors import InputError

SIZES = PUBLISHED | TINY


def main(arguments=None):
    """Run the command; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    made_up = arguments[:1] == ["synthesize"]
    parser, run = _synthesizer() if made_up else _converter()

    def work():
        """Run the command; its progress goes whatever happens."""
        options, progress = parser.parse_args(arguments[made_up:]), Progress()
        try:
            run(options, progress)
        finally:
            progress.clear()
        return 0

    status = guarded(work)
    if status == STOPPED:
        print("stopped; what was being written is not complete", file=sys.stderr)
    return status


def _synthesizer():
    parser = Parser(
        prog="python -m conversion synthesize",
        description="Write random weights of a published or tiny size in the hub's layout, and a tokenizer for it.",
    )
    parser.add_argument("config", metavar="CONFIG", choices=SIZES, help=", ".join(SIZES))
    parser.add_argument("folder", metavar="DIR", type=pathlib.Path, help="folder to write")
    parser.add_argument("--dtype", choices=FILE_DTYPES, default="bfloat16", help="of the file")
    parser.add_argument("--seed", type=int, default=0)
    return parser, lambda options, _: synthesize(options.config, options.folder, options.dtype, options.seed)


def _converter():
    parser = Parser(
        prog="python -m conversion",
        description="Convert a checkpoint to the layout of Hugging Face's hub, or to big_vision's npz.",
        epilog="python -m conversion synthesize CONFIG DIR writes random weights of a published or tiny size.",
    )
    parser.add_argument("source", metavar="SRC", help="folder, LoRA adapter, hub id or npz file")
    parser.add_argument("destination", metavar="DST", help="folder to write, or with a name in .npz a file")
    parser.add_argument("--dtype", choices=FILE_DTYPES, help="of the file (default: the source's)")
    parser.add_argument("--config", metavar="FILE", help="config.json of an npz file whose size is not a published one")
    parser.add_argument("--tokenizer", metavar="FILE", help="tokenizer.model or .json to go with an npz file")
    parser.add_argument("--base", metavar="DIR", help="checkpoint under a LoRA adapter (default: the one beside it)")

    def run(options, progress):
        source = Source.of(options.source, options.base, options.config, options.tokenizer)
        report = partial(progress.report, "converting")
        convert(source, options.destination, options.dtype, report)
        progress.clear()
        print_notes(source)

    return parser, run


def synthesize(name, folder: pathlib.Path, dtype="bfloat16", seed=0):
    """Write a checkpoint of one of `SIZES` with random weights and a usable tokenizer."""
    if seed < 0:
        raise InputError(f"the seed should be 0 or more, found {seed}")
    config, randomness = SIZES[name], np.random.default_rng(seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"cannot make the folder '{folder}': {problem.strerror}") from None
    words, text_pieces = WORDS.split(), config.image_token - len(LOCATIONS + SEGMENTS)
    pieces = write_tokenizer(folder / "tokenizer.model", [*words, *(f" {word}" for word in words)], text_pieces)
    assert pieces == config.image_token, f"{pieces} pieces, but the image's id is {config.image_token}"
    write_folder(folder, config, lambda leaf: initial(leaf, randomness), dtype)


if __name__ == "__main__":
    sys.exit(main())
