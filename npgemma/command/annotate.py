"""Draw answers: boxes, masks and labels on the image, and masks as images of their own."""

import io
import os
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from npgemma.errors import InputError
from npgemma.files import replacing

# Told apart on light and dark ground, and by most people who see colours differently (Okabe and Ito's palette).
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# How much of a mask's colour covers what is under it.
OPACITY = 0.5


def annotate(image, objects):
    """Draw boxes, masks and labels on an image.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB, the right way up.
    objects : list of npgemma.answer.Found

    Returns
    -------
    PIL.Image.Image
        A copy.
    """
    drawn = image.copy()
    for i, thing in enumerate(objects):
        if thing.mask is not None:
            opacity = Image.fromarray((thing.mask * round(255 * OPACITY)).astype(np.uint8))
            drawn.paste(COLOURS[i % len(COLOURS)], (0, 0), opacity)
    pen, thickness = ImageDraw.Draw(drawn), max(2, max(image.size) // 200)
    font = ImageFont.load_default(max(12, max(image.size) // 30))
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


def write_masks(folder, path, objects):
    """Write each mask as an image, white inside, named after the image, its place in the answer, and its label.

    Parameters
    ----------
    folder : str
        Made if it is not there.
    path : str
        Of the image that was asked about.
    objects : list of npgemma.answer.Found

    Returns
    -------
    list of str
        The files written: ``example-1-red-circle.png``.
    """
    os.makedirs(folder, exist_ok=True)
    stem, written = _stem(path), []
    for i, thing in enumerate(objects, 1):
        if thing.mask is not None:
            label = re.sub(r"\W+", "-", thing.label).strip("-")
            written.append(os.path.join(folder, "-".join(filter(None, [stem, str(i), label])) + ".png"))
            save_image(Image.fromarray(thing.mask), written[-1])
    return written


def _stem(path):
    """Return a file's name without its ending."""
    return os.path.splitext(os.path.basename(path))[0]


def check_mask_folder(path, images):
    """Refuse early a folder that cannot be written to, and images whose masks would have the same file name."""
    names = [_stem(image) for image in images]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(
            f"masks are named after their images, and two of these are called '{twice}': give each its own --mask-dir"
        )
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


def save_image(image, path):
    """Write an image in the format its name asks for; the file appears only once it is complete."""
    with replacing(path) as file:
        image.save(file, _format(path))


def _format(path):
    return Image.registered_extensions()[os.path.splitext(path)[1].lower()]
