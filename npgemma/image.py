"""Any image to pixels: what happens before the network, kept apart from it so that both can be tested alone.

*Next:* ``siglip.py``. *Skip on a first reading:* all but the notes of `load_image`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image

from npgemma.files.images import ADVICE, KIND, MAX_PIXELS, image_name, open_image, upright_rgb
from npgemma.files.reading import reading


@dataclass(frozen=True)
class LoadedImage:
    """An image as the model takes it, and the size it had before.

    Parameters
    ----------
    pixels_BYXC : float32 array
        One square image, RGB, from -1 to 1. Several of one prompt are ``BIYXC``: one axis more than the name says.
    size : (int, int)
        Columns and rows of the image as a person sees it; boxes are given in its pixels.
    """

    pixels_BYXC: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """How an image of the model's size becomes pixels; the defaults are those of all published checkpoints.

    Parameters
    ----------
    resample : int
        Pillow's filter: a value of `PIL.Image.Resampling`, 3 for bicubic, 2 for bilinear.
    factor : float
        Values from 0 to 255 are multiplied by it.
    mean, deviation : (float, float, float)
        For each channel: then ``mean`` is subtracted, and the difference is divided by ``deviation``.
    """

    resample: int = int(Image.Resampling.BICUBIC)
    factor: float = 1 / 255
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    deviation: tuple[float, float, float] = (0.5, 0.5, 0.5)


PUBLISHED = Preprocessing()

# What can be given as an image; a list is several images of one prompt.
AnyImage = (
    str | os.PathLike[str] | bytes | bytearray | IO[bytes] | Image.Image | np.ndarray | LoadedImage | Sequence[Any]
)


def load_image(
    image: AnyImage, side: int, preprocessing: Preprocessing = PUBLISHED, max_pixels: float = MAX_PIXELS
) -> LoadedImage:
    """Read an image and resize it to the model's square.

    Parameters
    ----------
    image : str, os.PathLike, bytes, binary file, PIL.Image.Image or uint8 array
        A file (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PPM, of any mode; of an animation the first frame), by its
        path, its content, or opened; the same in a ``data:`` address; a Pillow image, or an array (Y, X), (Y, X, 3) or
        (Y, X, 4) of values from 0 to 255.
    side : int
        Of the square, in pixels: ``config.vision.image_size``.
    preprocessing : Preprocessing
        The checkpoint's.
    max_pixels : float
        The largest image: by default any that takes less than ten seconds and three gigabytes. Kinds that are slow to
        decode, such as a PPM in text, are allowed fewer.

    Returns
    -------
    LoadedImage

    Raises
    ------
    InputError
        If there is no such file, it cannot be read as an image, or it is too large.

    Notes
    -----
    Why from -1 to 1: matrices learn fastest on numbers around 0 and of size about 1. Were all pixels positive, every
    output of the first matrix would carry the mean of all images, which is large beside the differences that matter.
    The range is part of the model: given pixels from 0 to 1 it sees a pale image, and no error says so.

    As in Hugging Face, an image of any shape is stretched or squeezed to the square, by Pillow's bicubic filter, which
    rounds to whole values again. big_vision resizes bilinearly and gemma.cpp takes the nearest pixel. That alone moves
    pixels by up to 30 of 255, more than any rounding in the network: compare implementations on the same pixels.
    """
    with reading(None, KIND, ADVICE, name=image_name(image)):
        upright = upright_rgb(open_image(image, max_pixels))
        values_YXC = np.asarray(upright.resize((side, side), Image.Resampling(preprocessing.resample)))
    # The factor in float64, all else in float32, as in Hugging Face; the published numbers give exactly x / 127.5 - 1.
    scaled_YXC = (values_YXC * preprocessing.factor).astype(np.float32)
    mean_C, deviation_C = np.array([preprocessing.mean, preprocessing.deviation], dtype=np.float32)
    return LoadedImage(((scaled_YXC - mean_C) / deviation_C)[None], upright.size)


def load_pixels(image: AnyImage, size: int) -> np.ndarray:
    """Return the pixels of an image alone: ``load_image(image, size).pixels_BYXC``."""
    return load_image(image, size).pixels_BYXC
