"""``python cli.py conformance``: write difficult images and prompts, with the inputs a port should make of them."""

import json

from npgemma.command import prepare
from npgemma.errors import InputError
from npgemma.tokenizer import open_tokenizer

SUMMARY = "Write difficult images and prompts with the exact pixels and token ids, for compare --inputs."


def add_arguments(parser):
    """Declare the command's arguments."""
    parser.add_argument("--out", metavar="DIR", required=True, help="new folder to write")


def run(options):
    """Write the set for the checkpoint's tokenizer, image size and preprocessing."""
    from conversion.folder import open_folder, tokenizer_of
    from conversion.preprocessing import read_preprocessing
    from npgemma.porting.input_set import write_set

    source = prepare.checkpoint(options)
    config, _ = open_folder(source)
    place = tokenizer_of(source)
    if place is None:
        raise InputError(f"no tokenizer in '{source.path}': give one with --tokenizer FILE")
    tokenizer = open_tokenizer(place, config.text.vocabulary)
    counts = write_set(options.out, config.vision.image_size, tokenizer, read_preprocessing(source, config, None))
    about = {"out": options.out, **counts}
    text = f"{counts['images']} images and {counts['prompts']} prompts written to {options.out}"
    print(json.dumps(about) if options.json else text, flush=True)
    return 0
