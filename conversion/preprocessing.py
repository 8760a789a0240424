"""What a folder says of image preprocessing, in ``preprocessor_config.json`` or ``processor_config.json``.

The published files all say the same (`npgemma.image.Preprocessing`'s defaults). Another filter, mean, standard
deviation or factor is followed; another way to reach the model's square is refused.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

from conversion.source import SMALL, Source
from npgemma.config import Config
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.reading import read_json
from npgemma.image import Preprocessing

LARGEST = 1e6
FILTERS = {"bicubic": int(Image.Resampling.BICUBIC), "bilinear": int(Image.Resampling.BILINEAR)}
# The steps of the published files; any other that is on is refused.
FOLLOWED = "do_resize", "do_rescale", "do_normalize", "do_convert_rgb"
_CHANNELS = (float, [float], None)
# The shape of what is read, where null stands for what was published.
SHAPE: dict[str, Any] = dict.fromkeys(FOLLOWED, (bool, None)) | {
    "image_processor_type": (str, None), "size": (int, {str: (int, None)}, None), "image_seq_length": (int, None),
    "resample": (int, None), "rescale_factor": (float, None), "image_mean": _CHANNELS, "image_std": _CHANNELS,
}  # fmt: skip
# Newer versions of transformers write the first file, and read it first.
FILES = {"processor_config.json": {"image_processor": (SHAPE, None)}, "preprocessor_config.json": SHAPE}


def read_preprocessing(source: Source, config: Config, resize: str | None = None) -> Preprocessing:
    """Read how images become pixels: as published where the folder says nothing; ``resize`` names another filter.

    InputError if the files ask for what npgemma does not do.
    """
    if resize is not None and resize not in FILTERS:
        raise InputError(f"resize should be {' or '.join(FILTERS)}, found {resize!r}")
    found = next((preprocessing for _, preprocessing in said(source, config)), Preprocessing())
    return dataclasses.replace(found, resample=FILTERS[resize]) if resize else found


def said(source: Source, config: Config) -> Iterator[tuple[pathlib.Path, Preprocessing]]:
    """Yield the path of each file that says something of images, and what: the one that is followed comes first."""
    for name, shape in FILES.items():
        path = source.file(name)
        document = read_json(path, shape, SMALL) if os.path.lexists(path) else {}
        document = document.get("image_processor") if "image_processor" in shape else document
        if document:
            yield path, _read(document, config, path)


def _read(document, config, path):
    def refuse(name, expected):
        found = shown(repr(document.get(name)), 80)
        raise InputError(f"'{path}' has {shown(name, 80)} {found}, but npgemma prepares images with {expected}")

    kind, side = document.get("image_processor_type"), config.vision.image_size
    if kind is not None and not kind.startswith("Siglip"):
        refuse("image_processor_type", "SiglipImageProcessor's steps")
    for name in document:
        if name.startswith("do_") and name not in FOLLOWED and document[name]:
            refuse(name, "resizing, scaling and normalisation only")
    if document.get("do_resize") is False:
        refuse("do_resize", f"a resize to {side} x {side} pixels")
    size = document.get("size")
    size = {key: value for key, value in size.items() if value is not None} if isinstance(size, dict) else size
    if size is not None and size not in ({"height": side, "width": side}, side):
        refuse("size", f"a resize to the {side} x {side} pixels of config.json")
    tokens = document.get("image_seq_length")
    if tokens is not None and tokens != config.image_tokens:
        refuse("image_seq_length", f"the {config.image_tokens} image tokens of config.json")
    filters = [resample.value for resample in Image.Resampling]
    resample = document.get("resample", Preprocessing.resample)
    resample = Preprocessing.resample if resample is None else resample
    if resample not in filters:
        refuse("resample", f"one of Pillow's filters, {min(filters)} to {max(filters)}")
    factor = 1.0 if document.get("do_rescale") is False else document.get("rescale_factor")
    factor = Preprocessing.factor if factor is None else factor
    if not 1 / LARGEST < abs(factor) < LARGEST:
        refuse("rescale_factor", f"a factor up to {LARGEST:.0f}, and not 0")
    mean, deviation = (_channels(document, name, refuse) for name in ("image_mean", "image_std"))
    if min(deviation) < 1 / LARGEST:
        refuse("image_std", "standard deviations above 0")
    if document.get("do_normalize") is False:
        mean, deviation = (0.0,) * 3, (1.0,) * 3
    return Preprocessing(resample, float(factor), mean, deviation)


def _channels(document, name, refuse):
    value = document.get(name)
    value = [0.5] * 3 if value is None else value if isinstance(value, list) else [value] * 3
    if len(value) != 3 or max(map(abs, value)) > LARGEST:
        refuse(name, "a number for each of three channels")
    return tuple(map(float, value))
