"""Image files of any format and mode, damaged ones too, to upright 8-bit RGB."""

import contextlib
import os
import re
import warnings

import numpy as np
from PIL import Image, ImageOps

from npgemma.errors import InputError


def open_image(image):
    """Return a fully decoded Pillow image of a path, a uint8 array or such an image; of an animation, the first frame.

    InputError says what is wrong with a file or an array.
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


def upright_rgb(image: Image.Image) -> Image.Image:
    """Rotate an image as its EXIF data say, and convert it to 8-bit RGB.

    Transparent parts are put on white, as viewers show them. Greys of more than 8 bits keep their whole range; Pillow's
    own conversion would cut it off at 255.
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
