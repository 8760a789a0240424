"""Images that the command writes: their formats and names, and early checks of both."""

import io
import os
import re

from PIL import Image

from npgemma.answer import Detection
from npgemma.errors import InputError
from npgemma.files.reading import reason
from npgemma.files.writing import check_writable, replacing

# Bytes of a file name that come from its label, and of a whole name: file systems allow 255, some fewer.
LABEL_BYTES, NAME_BYTES = 80, 180


class Names:
    """Gives every file of a run a path of its own, which no image has that the run reads."""

    def __init__(self, images):
        self.taken = {_place(path) for path in images}

    def free(self, folder, name):
        """Return a path in a folder: with a number behind the name where it is taken."""
        path, number = os.path.join(folder, name), 1
        while _place(path) in self.taken:
            number += 1
            path = f"-{number}".join(os.path.splitext(os.path.join(folder, name)))
        self.taken.add(_place(path))
        return path


def _place(path):
    """Return what a path leads to; on some systems, names in capitals are the same names."""
    return os.path.realpath(path).casefold()


def write_masks(folder, path, objects: list[Detection], free=os.path.join) -> list[str]:
    """Write each mask as an image, white inside, and return the files: ``example-1-red-circle.png`` after the image
    ``path``, the place in its answer, and the label; ``free`` makes a path of folder and name.
    """
    written = []
    for i, detection in enumerate(objects, 1):
        if detection.mask is not None:
            written.append(free(folder, mask_name(path, i, detection.label)))
            save_image(Image.fromarray(detection.mask), written[-1])
    return written


def drawn_name(path, kind):
    """Return the file name of an image that shows something about another: ``cats-annotated.png``."""
    return f"{_shortened(_stem(path), NAME_BYTES - LABEL_BYTES)}-{kind}.png"


def mask_name(path, place, label):
    """Return the file name of a mask: of letters, digits and lines only, and no longer than file systems allow.

    Examples
    --------
    >>> mask_name("photos/cats.jpg", 2, "the left cat / kitten?")
    'cats-2-the-left-cat-kitten.png'
    """
    label = _shortened(re.sub(r"\W+", "-", label), LABEL_BYTES).strip("-")
    stem = _shortened(_stem(path), NAME_BYTES - LABEL_BYTES)
    return "-".join(filter(None, [stem, str(place), label])) + ".png"


def _shortened(text, most):
    """Return as many of the first letters of a text as fit so many bytes."""
    return text.encode("utf-8", "ignore")[:most].decode("utf-8", "ignore")


def _stem(path):
    """Return a file's name without its ending."""
    return os.path.splitext(os.path.basename(path))[0]


def check_folder(path):
    """Refuse early a folder that cannot be written to."""
    nearest = path
    while nearest and not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not path or not os.path.isdir(nearest or ".") or not os.access(nearest or ".", os.W_OK):
        raise InputError(f"cannot write to the folder '{path}': name one that is there or can be made")


def check_image_name(path):
    """Refuse early a file name whose ending Pillow cannot write, or whose folder cannot be written to."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InputError(f"cannot write '{path}': name a file in a folder that can be written to")
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), _format(path))
    # Formats that Pillow can only read raise one thing, those that need other images another.
    except Exception:
        raise InputError(f"an image to write should be named like out.png or out.jpg, found '{path}'") from None
    check_writable(path)


def save_image(image, path):
    """Write an image in the format its name asks for; the file appears only once it is complete. A folder that does not
    exist is made.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        # Of PNG: the next levels take five times as long, and make photos hardly smaller.
        with replacing(path) as file:
            image.save(file, _format(path), compress_level=1)
    except InputError:
        raise
    # Pillow refuses sizes that a format cannot have in different ways.
    except Exception as problem:
        raise InputError(f"cannot write '{path}' ({reason(problem)}): name another, or one that ends in .png") from None


def _format(path):
    return Image.registered_extensions()[os.path.splitext(path)[1].lower()]
