"""Options of ``generate`` that show how an answer came about: --top-logits, --show-attention, --save-image-as-seen."""

import contextlib
import os

import numpy as np
from PIL import Image

from npgemma.command.arguments import positive
from npgemma.command.attention_sheet import HEADS, attention_sheet
from npgemma.command.image_files import check_image_name
from npgemma.command.inputs import flat
from npgemma.errors import InputError
from npgemma.explain.attention_maps import attention_of
from npgemma.explain.passes import Candidate, watched
from npgemma.explain.seen_image import as_seen
from npgemma.porting.given_tokens import pixels_of, prompt_ids

# Every option of the command that names an image to write, and what is behind the image's name in --out-dir.
FILES = {"annotate": "--annotate", "show_attention": "--show-attention", "image_as_seen": "--save-image-as-seen"}
GRID = (128, 128, 128)
KINDS = {"annotate": "annotated", "show_attention": "attention", "image_as_seen": "seen"}


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument(
        "--top-logits", type=positive, default=0, metavar="N",
        help="print the N most probable tokens at each place of the answer, with their probabilities",
    )  # fmt: skip
    parser.add_argument(
        "--show-attention", nargs="?", const=True, metavar="FILE",
        help="image to write, with the attention of each token of the answer onto the image: of the "
        f"{HEADS} heads of the decoder, in whichever layers, that look at the image most sharply; beneath, the shares "
        "of the image, <bos>, the prompt and the answer so far",
    )  # fmt: skip
    parser.add_argument(
        "--save-image-as-seen", nargs="?", const=True, metavar="FILE", dest="image_as_seen",
        help="image to write: the square that the model sees, exactly",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=int, choices=range(1, 17), default=1, metavar="N",
        help="for --save-image-as-seen: N pixels, 1 to 16, on each side for one of the model's (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--grid", action="store_true", help="for --save-image-as-seen: draw the borders of patches")


def check(options, paths, answers):
    """Refuse early what cannot be written, or not about so many answers, and what cannot be watched."""
    outputs = FILES | {"mask_dir": "--mask-dir"}
    given = {
        option: getattr(options, field) for field, option in outputs.items() if getattr(options, field) is not None
    }
    if options.out_dir is not None and not given:
        raise InputError(f"--out-dir is for images to write: add {' or '.join(outputs.values())}")
    taken = {os.path.realpath(path): "the image itself" for path in flat(paths[:1]) if "\0" not in path}
    for option, path in given.items():
        if path is True and options.out_dir is None:
            raise InputError(f"{option} needs a name behind it, or --out-dir DIR beside it")
        if path is not True and options.out_dir is not None:
            raise InputError(f"--out-dir names files after their images: leave out '{path}' behind {option}")
        if path is True or option == "--mask-dir":
            continue
        if answers > 1:
            raise InputError(f"{option} FILE is for one answer about one image, found {answers}: use --out-dir DIR")
        check_image_name(path)
        owner = taken.setdefault(os.path.realpath(path), option)
        if owner != option:
            raise InputError(f"{option} would overwrite {owner} at '{path}': name another file")
    if (options.grid or options.scale > 1) and options.image_as_seen is None:
        raise InputError("--scale and --grid are for the image of --save-image-as-seen: add it")
    if options.static and (options.top_logits or options.show_attention):
        raise InputError("--top-logits and --show-attention watch each step, which --static compiles: leave it out")


def watching(options, model):
    """Watch the passes of the answers given inside a ``with`` block; None if the options show nothing of them."""
    if not options.top_logits and options.show_attention is None:
        return contextlib.nullcontext()
    return watched(model, options.top_logits, options.show_attention is not None)


def seen_image(image, model):
    """Return the square that the model sees; of several images, the squares side by side."""
    pixels = pixels_of(image)[0]
    squares = pixels[None] if pixels.ndim == 3 else pixels
    return Image.fromarray(as_seen(np.concatenate(squares, axis=1), model.preprocessing))


def for_looking(seen, scale, patch, grid):
    """Return an image as seen, enlarged ``scale`` times; with a ``grid`` a line stands before each patch."""
    levels_YXC = np.asarray(seen).repeat(scale, axis=0).repeat(scale, axis=1)
    if grid:
        levels_YXC[:: scale * patch] = levels_YXC[:, :: scale * patch] = GRID
    return Image.fromarray(levels_YXC)


def attention_sheet_of(question, answer, passes, model):
    """Return the sheet of the attention of an answer that was given alone."""
    if not passes.weights:
        raise InputError("no attention weights were seen, as a mistake took their place: leave out --show-attention")
    image, prompt = question.image, len(prompt_ids(model, question.prompt))
    attention = attention_of(passes, answer, len(image) if isinstance(image, list) else 1, prompt)
    return attention_sheet(seen_image(image, model), attention, answer, model.tokenizer)


def candidate_lines(places: list[list[Candidate]]) -> list[str]:
    """Lay out the most probable tokens, a line for each place of the answer.

    Examples
    --------
    >>> from npgemma.explain.passes import Candidate
    >>> candidate_lines([[Candidate(7, " red", 9.0, 0.9), Candidate(9, "<eos>", 6.0, 0.04)]])
    ["    1  ' red' 90.00 %  '<eos>' 4.00 %"]
    """
    return [
        f"{place:5}  " + "  ".join(f"{token.text!r} {100 * token.probability:.2f} %" for token in candidates)
        for place, candidates in enumerate(places, 1)
    ]
