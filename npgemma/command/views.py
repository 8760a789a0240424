"""Options of ``generate`` that show how an answer came about: --top-logits, --show-attention, --save-image-as-seen."""

import contextlib
import os

import numpy as np
from PIL import Image

from npgemma.command.arguments import positive
from npgemma.command.attention_sheet import HEADS, attention_sheet
from npgemma.command.image_files import check_image_name, save_image
from npgemma.errors import InputError
from npgemma.explain.attention_maps import attention_of
from npgemma.explain.passes import Candidate, watched
from npgemma.explain.seen_image import as_seen
from npgemma.porting.given_tokens import pixels_of, prompt_ids

# Every option of the command that names an image to write.
FILES = {"annotate": "--annotate", "show_attention": "--show-attention", "image_as_seen": "--save-image-as-seen"}


def add_arguments(parser):
    """Declare the options."""
    parser.add_argument(
        "--top-logits", type=positive, default=0, metavar="N",
        help="print the N most probable tokens at each place of the answer, with their probabilities",
    )  # fmt: skip
    parser.add_argument(
        "--show-attention", metavar="FILE",
        help="image to write, with the attention of each token of the answer onto the image: of the "
        f"{HEADS} heads of the decoder, in whichever layers, that look at the image most sharply; beneath, the shares "
        "of the image, <bos>, the prompt and the answer so far",
    )  # fmt: skip
    parser.add_argument(
        "--save-image-as-seen", metavar="FILE", dest="image_as_seen",
        help="image to write: the square that the model sees",
    )  # fmt: skip


def check(options):
    """Refuse early what cannot be written or watched."""
    taken = {os.path.realpath(path): "the image itself" for path in options.image or []}
    for field, name in FILES.items():
        path = getattr(options, field)
        if path is None:
            continue
        check_image_name(path)
        owner = taken.setdefault(os.path.realpath(path), name)
        if owner != name:
            raise InputError(f"{name} would overwrite {owner} at '{path}': name another file")
    if options.static and (options.top_logits or options.show_attention):
        raise InputError("--top-logits and --show-attention watch each step, which --static compiles: leave it out")


def one_image_only(options):
    """Return whether an option writes one file, which can show one image only."""
    return any(getattr(options, field) is not None for field in FILES)


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


def write_attention(options, image, answer, passes, model):
    """Write the sheet of an answer's attention."""
    if not passes.weights:
        raise InputError("no attention weights were seen, as a mistake took their place: leave out --show-attention")
    images, prompt = len(image) if isinstance(image, list) else 1, len(prompt_ids(model, options.prompt))
    attention = attention_of(passes, answer, images, prompt)
    save_image(attention_sheet(seen_image(image, model), attention, answer, model.tokenizer), options.show_attention)


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
