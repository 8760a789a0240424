"""Any image to pixels: what happens before the network, kept apart from it so that both can be tested alone."""

import contextlib
import os
import re
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from npgemma.errors import InputError

# `npgemma.record` does not follow this file: it comes before the forward pass.
RECORDED = False


@dataclass(frozen=True)
class LoadedImage:
    """An image as the model takes it, and the size it had before.

    Parameters
    ----------
    pixels_BYXC : float32 array
        One square image, RGB, from -1 to 1; several of one prompt have one more axis, behind the first.
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
AnyImage = str | os.PathLike | Image.Image | np.ndarray | LoadedImage | list


def load_image(image, side, preprocessing=PUBLISHED):
    """Read an image and resize it to the model's square.

    Parameters
    ----------
    image : str, os.PathLike, PIL.Image.Image or uint8 array
        A file in any format and mode that Pillow reads, a Pillow image, or an array (Y, X), (Y, X, 3) or (Y, X, 4) of
        values from 0 to 255.
    side : int
        Of the square, in pixels: ``config.vision.image_size``.
    preprocessing : Preprocessing
        The checkpoint's.

    Returns
    -------
    LoadedImage

    Raises
    ------
    InputError
        If there is no such file or it cannot be read as an image.

    Notes
    -----
    Why from -1 to 1: matrices learn fastest on numbers around 0 and of size about 1. Were all pixels positive, every
    output of the first matrix would carry the mean of all images, which is large beside the differences that matter.
    The range is part of the model: given pixels from 0 to 1 it sees a pale image, and no error says so.

    As in Hugging Face: squashed to the square whatever its shape, by Pillow's bicubic filter, rounded to whole
    values again. big_vision resizes bilinearly and gemma.cpp takes the nearest pixel; that alone moves pixels by up to
    30 of 255, more than any rounding in the network, so compare implementations on the same pixels.
    """
    upright = upright_rgb(open_image(image))
    values_YXC = np.asarray(upright.resize((side, side), Image.Resampling(preprocessing.resample)))
    # The factor in float64, all else in float32, as in Hugging Face; the published numbers give exactly x / 127.5 - 1.
    scaled_YXC = (values_YXC * preprocessing.factor).astype(np.float32)
    mean_C, deviation_C = np.float32(preprocessing.mean), np.float32(preprocessing.deviation)
    return LoadedImage(((scaled_YXC - mean_C) / deviation_C)[None], upright.size)


def load_pixels(image, size):
    """Return the pixels of an image alone: ``load_image(image, size).pixels_BYXC``.

    Parameters
    ----------
    image : str, os.PathLike, PIL.Image.Image or uint8 array
    size : int
        Side of the square.

    Returns
    -------
    pixels_BYXC : float32 array
        One image, RGB, from -1 (0) to 1 (255).
    """
    return load_image(image, size).pixels_BYXC


def open_image(image):
    """Return a fully decoded Pillow image; of an animation, the first frame.

    Parameters
    ----------
    image : str, os.PathLike, PIL.Image.Image or uint8 array

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    InputError
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        if (
            image.dtype != np.uint8
            or image.ndim not in (2, 3)
            or image.shape[2:] not in ((), (3,), (4,))
            or not image.size
        ):
            raise InputError(
                "an image given as an array should be uint8 of shape (rows, columns, 3) with values from 0 to 255, "
                f"found {image.dtype} of shape {image.shape}"
            )
        return Image.fromarray(image)
    path = os.fspath(image)
    if isinstance(path, str) and re.match(r"[a-z]+://", path, re.IGNORECASE):
        raise InputError(f"'{path}' is an address: download the image first, and name the file")
    if not os.path.exists(path):
        raise InputError(f"no image at '{path}': check the path")
    if os.path.isdir(path):
        raise InputError(f"'{path}' is a folder, not an image: name the file in it")
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata, which matter to nobody here, and of images from 89 megapixels, which
            # a phone can take; from 179 it refuses, and that stands.
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                _scale_transparency(opened)
                opened.load()
                opened.getexif()  # some formats read it only now, while the file is open
    except Image.DecompressionBombError:
        most = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise InputError(f"image '{path}' has more than {most} million pixels: scale it down first") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"'{path}' is not an image in a format that Pillow reads: convert it to PNG or JPEG") from None
    # Pillow's decoders raise whatever a damaged file leads them to: OSError, SyntaxError, ValueError, struct.error.
    except Exception as problem:
        raise InputError(f"image '{path}' cannot be decoded ({problem}): is the file complete?") from None
    return opened


def _scale_transparency(opened):
    """Bring the transparent value of a PNG to 8 bits as its pixels will be; Pillow leaves it as the file has it."""
    single, stored = opened.info.get("transparency"), opened.tile[0][3] if opened.tile else None
    if stored in ("L;2", "L;4") and isinstance(single, int):
        opened.info["transparency"] = single * (85 if stored == "L;2" else 17)
    if stored == "RGB;16B" and isinstance(single, tuple):
        opened.info["transparency"] = tuple(level >> 8 for level in single)


def upright_rgb(image):
    """Rotate an image as its EXIF data say, and convert it to 8-bit RGB.

    Transparent parts are put on white, as viewers show them. Greys of more than 8 bits keep their whole range; Pillow's
    own conversion would cut it off at 255.

    Parameters
    ----------
    image : PIL.Image.Image

    Returns
    -------
    PIL.Image.Image
        Mode RGB.
    """
    # Damaged EXIF data, which raise anything, say nothing of how the image should be rotated.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = ImageOps.exif_transpose(image)
    image, transparent_YX = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    if transparent_YX is not None:
        image.paste("white", mask=Image.fromarray(transparent_YX))
    return image


def _eight_bits(image):
    """Return an image of at most 8 bits a channel, and which of its pixels are transparent, if it no longer says so."""
    single = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values_YX = np.nan_to_num(np.asarray(image, dtype=np.float64))
        # Modes do not tell the range: take the smallest customary one that holds the values.
        full = next((top for top in (1, 255, 65535) if values_YX.max() <= top), values_YX.max())
        full = max(full, 65535) if image.mode.startswith("I;16") else full
        grey = Image.fromarray((values_YX.clip(0) / full * 255).round().astype(np.uint8))
        return grey, values_YX == single if isinstance(single, int) else None
    return image, None
