"""Reading an answer: where in the picture the things are that it names."""

import io
import os
import re
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from conversion.safetensors_file import replacing
from npgemma.errors import InputError
from npgemma.image import open_picture, upright_rgb

# ``<locYMIN><locXMIN><locYMAX><locXMAX> label``, several of them parted by semicolons.
_OBJECT = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>\s*([^;<>]*)")
HIGHEST_LOCATION = 1023
# Told apart on light and dark ground, and by most people who see colours differently (Okabe and Ito's palette).
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class Found:
    """A thing in a picture."""

    label: str
    box: tuple[float, float, float, float]  # left, top, right, bottom, in pixels from the picture's top left corner


def find_objects(text, size):
    """Read the boxes of an answer to ``detect ...``.

    Parameters
    ----------
    text : str
        ``<loc0102><loc0051><loc0512><loc0900> cat ; <loc...> dog``; other text is passed over.
    size : (int, int)
        Columns and rows of the picture that was asked about, as a person sees it (`npgemma.image.upright_rgb`).

    Returns
    -------
    list of Found
        In the order of the answer. A box without area, which the model's authors count as wrong, is left out.

    Notes
    -----
    A location n of 0 to 1023 means the fraction n / 1023 of the side, for the model was trained on
    ``round(fraction * 1023)`` (``big_vision/pp/proj/paligemma/segmentation.py``). Many programs divide by 1024 instead,
    which moves the far edge by a thousandth of the side.

    Examples
    --------
    >>> find_objects("<loc0000><loc0000><loc1023><loc1023> cat", (640, 480))
    [Found(label='cat', box=(0.0, 0.0, 640.0, 480.0))]
    """
    columns, rows = size
    found = []
    for *locations, label in _OBJECT.findall(text):
        top, left, bottom, right = (int(location) / HIGHEST_LOCATION for location in locations)
        if top < bottom <= 1 and left < right <= 1:
            found.append(Found(label.strip(), (left * columns, top * rows, right * columns, bottom * rows)))
    return found


def objects_in(path, text):
    """Return a picture as a person sees it and the things in it that an answer names; None and none without a box."""
    if "<loc" not in text:
        return None, []
    picture = upright_rgb(open_picture(path))
    return picture, find_objects(text, picture.size)


def annotate(picture, objects):
    """Draw boxes and labels on a picture.

    Parameters
    ----------
    picture : PIL.Image.Image
        Mode RGB, the right way up.
    objects : list of Found

    Returns
    -------
    PIL.Image.Image
        A copy.
    """
    drawn = picture.copy()
    pen, thickness = ImageDraw.Draw(drawn), max(2, max(picture.size) // 200)
    font = ImageFont.load_default(max(12, max(picture.size) // 30))
    for i, thing in enumerate(objects):
        colour, (left, top, _, _) = COLOURS[i % len(COLOURS)], thing.box
        pen.rectangle(thing.box, outline=colour, width=thickness)
        if thing.label:
            # On the box if there is room, else inside it.
            height = pen.textbbox((0, 0), thing.label, font=font)[3] + thickness
            corner = (left, top - height if top >= height else top + thickness)
            pen.rectangle(pen.textbbox(corner, thing.label, font=font), fill=colour)
            pen.text(corner, thing.label, font=font, fill="white")
    return drawn


def check_picture_name(path):
    """Refuse early to write a picture that could not be written later: by its ending, or by its folder."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InputError(f"cannot write '{path}': name a file in a folder that can be written to")
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), _format(path))
    # Formats that Pillow can only read raise one thing, those that need other pictures another.
    except Exception:
        raise InputError(f"a picture to write should be named like out.png or out.jpg, found '{path}'") from None


def save_picture(picture, path):
    """Write a picture in the format its name asks for; the file appears only once it is complete."""
    with replacing(path) as file:
        picture.save(file, _format(path))


def _format(path):
    return Image.registered_extensions()[os.path.splitext(path)[1].lower()]
