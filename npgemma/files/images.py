"""Images of any kind, format and mode, damaged and hostile ones too, to upright 8-bit RGB."""

import base64
import contextlib
import io
import itertools
import math
import os
import re
import struct
import urllib.parse
import warnings

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from npgemma.errors import InputError
from npgemma.files.reading import reading

# What is opened; HEIF only where `pillow_heif` has told Pillow of it. Of Pillow's others, EPS starts a program.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "HEIF")
READ = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF and PPM"
KIND, ADVICE = "an image that can be decoded", "check that it is complete, or save it again, smaller"
# Up to so many pixels, every image takes less than ten seconds and three gigabytes.
MAX_PIXELS = 120_000_000
# How many times longer than others' pixels some take, by Pillow's decoder, its mode, or a TIFF's compression; and how
# many scans of a JPEG, each of which goes over all pixels, take no longer (programs write about ten).
SLOW = {"ppm": 50, "ppm_plain": 30, "bmp_rle": 6, "RGB;16B": 2, "RGBA;16B": 2}
SLOW_TIFF, SCANS = {"lzma": 4, "jpeg": 2, "tiff_jpeg": 2}, 50
# Resizing takes memory by the longer side, and converting several times an image's: the shorter side counts as at least
# so much, and squares of such a side are converted.
LEAST_SIDE, PIECE = 256, 1024
# How often Pillow may read of a file, which some lead in circles; and bytes of a file object, which may have no end.
MOST_READS, MOST_BYTES, MOST_EXIF = 2_000_000, 1_000_000_000, 500
# Chunks that pixels of a PNG need but not all have, and texts that can say which way is up.
CHUNKS = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")
TEXTS, KEYS = (b"tEXt", b"zTXt", b"iTXt"), {"XML:com.adobe.xmp", "Raw profile type exif"}
# What ends the data of a JPEG's scan: a marker that is neither a byte 255 nor a restart.
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# How an image is transposed, by the tag Orientation of its EXIF data.
ORIENTATION, TRANSPOSED = 0x0112, dict(enumerate(map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), 2))


def open_image(image, max_pixels=MAX_PIXELS):
    """Return a fully decoded Pillow image of any image (`npgemma.image.load_image`); of an animation, the first frame.

    InputError says what is wrong with it, or that it takes more time and memory than ``max_pixels`` ordinary pixels.
    """
    path, name = _path(image), image_name(image)
    with reading(path, KIND, ADVICE, f"no image at {name}: check the path", name):
        try:
            if isinstance(image, np.ndarray):
                image = _of_array(image, max_pixels)
            if isinstance(image, Image.Image):
                return _decoded(image, getattr(image, "fp", None), max_pixels)
            with _Metered(io.BytesIO(_content(image)) if path is None else io.FileIO(path)) as file:
                start = file.read(8)
                source = _without_bulk(file) if start == b"\x89PNG\r\n\x1a\n" else file
                # Pillow copies what it has of them for each more.
                if start[:2] == b"\xff\xd8" and file.read().count(b"Exif\0\0") > MOST_EXIF:
                    raise ValueError("it has too many parts")
                formats = [each for each in FORMATS if each != "HEIF" or each in Image.OPEN]
                return _decoded(Image.open(source, formats=formats), source, max_pixels)
        except UnidentifiedImageError:
            raise InputError(f"{name} is not an image in a format that is read, {READ}: convert it to PNG") from None
        except Image.DecompressionBombError:
            raise InputError(
                f"{name} has more than {max_pixels:,.0f} pixels, or takes as long to decode: scale it down "
                "first, or allow more with --max-pixels (in Python max_pixels, and PIL.Image.MAX_IMAGE_PIXELS)"
            ) from None


def image_name(image):
    """Return what a message calls an image: its path, or words where it is none, and nothing of its content."""
    path = _path(image)
    if path is None:
        return "the image of a data: address" if isinstance(image, str) else "the image"
    return f"'{path}'"


def _path(image):
    """Return the path of an image that is a file, otherwise None."""
    if not isinstance(image, str | os.PathLike):
        return None
    path = os.fsdecode(image)
    if re.match(r"[a-z]+://", path, re.IGNORECASE):
        raise InputError(f"'{path}' is an address: download the image first, and name the file")
    return None if path[:5].lower() == "data:" else path


def _content(image):
    """Return the bytes of a file object, a data: address or bytes of any kind."""
    if isinstance(image, str):
        head, _, text = image.partition(",")
        if not head.lower().endswith(";base64"):
            raise InputError("the data: address of an image should begin like 'data:image/png;base64,'")
        return base64.b64decode(urllib.parse.unquote_to_bytes(text))
    if hasattr(image, "read"):
        with contextlib.suppress(OSError, AttributeError):
            image.seek(0)
        image = image.read(MOST_BYTES)
    if not isinstance(image, bytes | bytearray | memoryview):
        found = type(image).__name__
        raise InputError(f"an image should be a path, a Pillow image, an array, bytes or a binary file, found {found}")
    return bytes(image)


class _Metered(io.BufferedReader):
    """A binary file that raises ValueError once it was read too often, or several times its size."""

    def __init__(self, raw):
        super().__init__(raw)
        self.reads, self.bytes = MOST_READS, 4 * self.seek(0, io.SEEK_END) + 64_000_000
        self.seek(0)

    def read(self, size=-1):
        """Read as any file does."""
        content = super().read(size)
        self.reads, self.bytes = self.reads - 1, self.bytes - len(content)
        if min(self.reads, self.bytes) < 0:
            raise ValueError("it has too many parts")
        return content


def _of_array(image, max_pixels):
    """Return the Pillow image of a uint8 array."""
    shape = image.shape
    if image.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)) or 0 in shape:
        raise InputError(
            "an image given as an array should be uint8 of shape (rows, columns, 3) with values from 0 to 255, "
            f"found {image.dtype} of shape {shape}"
        )
    # Strides of 0 make any size of one byte.
    if shape[0] * shape[1] > max_pixels:
        raise Image.DecompressionBombError
    return Image.fromarray(image)


def _decoded(opened, file, max_pixels):
    """Decode a Pillow image, if that is still to be done, from a file."""
    if 0 in opened.size:
        raise ValueError("it has no pixels")
    tiles = getattr(opened, "tile", None)
    size, slow = _cost(opened, tiles[0], file) if tiles else (opened.size, 1)
    if math.prod(max(side, LEAST_SIDE) for side in size) * slow > max_pixels:
        raise Image.DecompressionBombError
    if tiles:
        _scale_transparency(opened)
    opened.load()
    return opened


def _cost(opened, tile, file):
    """Return the size of an image as its decoder sees it, and how many times longer than others its pixels take."""
    (decoder, _, _, mode), size = tile, opened.size
    slow = SLOW.get(decoder, SLOW.get(mode, 1))
    if opened.format == "TIFF":
        # Its tiles can be larger than the image.
        sides = zip(size, (opened.tag_v2.get(tag, 1) for tag in (322, 323)))
        size, slow = [-(-side // tile) * tile for side, tile in sides], SLOW_TIFF.get(opened.info["compression"], 1)
    elif opened.format == "AVIF":
        size = max(size[0], 2 * file.seek(0, io.SEEK_END) // size[1]), size[1]
    elif decoder in ("jpeg", "ppm_plain"):
        file.seek(0)
        content = file.read()
        # Of a PPM in text, Pillow copies up to a megabyte for each comment.
        slow = max(slow, _scans(content) / SCANS if decoder == "jpeg" else content.count(b"#") / 10)
    return size, slow


def _scans(content):
    """Return how many scans a JPEG has."""
    place, scans = 2, 0
    while (found := MARKER.search(content, place)) and found[0] != b"\xff\xd9":
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2])
        scans += found[0] == b"\xff\xda"
    return scans


def _without_bulk(file):
    """Return a PNG without what matters neither to its pixels nor to its orientation, such as long texts and profiles.

    Pillow unpacks all of it, and refuses an image where one is more than a megabyte.
    """
    parts, place, texts = [0, file.seek(8)], 8, 50
    while len(header := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", header)
        needed = name in CHUNKS or not name[0] & 32
        if name in TEXTS and texts:
            texts, stream = texts - 1, PngImagePlugin.PngStream(file)
            with contextlib.suppress(Exception):
                getattr(stream, f"chunk_{name.decode()}")(place + 8, length)
                needed = not KEYS.isdisjoint(stream.im_info)
        end = place + 12 + length
        if needed:
            parts += place, end
        place = file.seek(end)
    pieces = [(file.seek(start), file.read(end - start))[1] for start, end in zip(parts[::2], parts[1::2])]
    return _Metered(io.BytesIO(b"".join(pieces)))


def _scale_transparency(opened):
    """Bring the transparent value of a PNG to 8 bits as its pixels will be; Pillow leaves it as the file has it."""
    single, stored = opened.info.get("transparency"), opened.tile[0][3]
    if stored in ("L;2", "L;4") and isinstance(single, int):
        opened.info["transparency"] = single * (85 if stored == "L;2" else 17)
    if stored == "RGB;16B" and isinstance(single, tuple):
        opened.info["transparency"] = tuple(level >> 8 for level in single)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Rotate an image as its EXIF data say, and convert it to 8-bit RGB.

    Transparent parts are put on white, as viewers show them. Greys of more than 8 bits keep their whole range; Pillow's
    own conversion would cut it off at 255.
    """
    whole = image
    if image.mode != "RGB" or image.has_transparency_data:
        whole, white = Image.new("RGB", image.size), _white(image)
        for left, top in itertools.product(range(0, image.width, PIECE), range(0, image.height, PIECE)):
            box = left, top, min(left + PIECE, image.width), min(top + PIECE, image.height)
            whole.paste(_rgb(image.crop(box), white), box)
    turn = None
    # Damaged EXIF data, which raise anything, say nothing of how the image should be rotated.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        turn = TRANSPOSED.get(image.getexif().get(ORIENTATION, 1))
    return whole if turn is None else whole.transpose(turn)


def _white(image):
    """Return the value that is white in an image of more than 8 bits, otherwise None."""
    if image.mode.startswith("I;16"):
        return 65535
    if image.mode not in ("I", "F"):
        return None
    # Modes do not tell the range: take the smallest customary one that holds the values.
    largest = np.nan_to_num(float(np.fmax.reduce(np.asarray(image), axis=None)))
    return next((top for top in (1, 255, 65535) if largest <= top), largest)


def _rgb(piece, white):
    """Convert a piece of an image to 8-bit RGB; ``white`` is what `_white` says."""
    if white is not None:
        values_YX, single = np.nan_to_num(np.asarray(piece, dtype=np.float64)), piece.info.get("transparency")
        piece = Image.fromarray((values_YX.clip(0) / white * 255).round().astype(np.uint8))
        if isinstance(single, int):
            piece.putalpha(Image.fromarray(values_YX != single))
    if piece.mode == "La":
        piece = piece.convert("LA")
    if piece.has_transparency_data:
        piece = piece.convert("RGBA")
        piece = Image.alpha_composite(Image.new("RGBA", piece.size, "white"), piece)
    return piece.convert("RGB")
