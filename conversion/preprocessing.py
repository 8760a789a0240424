"""What a folder says of image preprocessing, in ``preprocessor_config.json`` or ``processor_config.json``.

The published files all say the same (`npgemma.image.Preprocessing`'s defaults). Another filter, mean, standard
deviation or factor is followed; another way to reach the model's square is refused.
"""

import dataclasses

from PIL import Image

from conversion.source import Source
from npgemma.config import Config
from npgemma.errors import InputError
from npgemma.files.reading import read_json
from npgemma.image import Preprocessing

FILTERS = {"bicubic": int(Image.Resampling.BICUBIC), "bilinear": int(Image.Resampling.BILINEAR)}
# The steps of the published files; any other that is on is refused.
FOLLOWED = "do_resize", "do_rescale", "do_normalize", "do_convert_rgb"


def read_preprocessing(source: Source, config: Config, resize: str | None = None) -> Preprocessing:
    """Read how images become pixels: as published where the folder says nothing; ``resize`` names another filter.

    InputError if the files ask for what npgemma does not do.
    """
    if resize is not None and resize not in FILTERS:
        raise InputError(f"resize should be {' or '.join(FILTERS)}, found {resize!r}")
    found = _from_files(source, config)
    return dataclasses.replace(found, resample=FILTERS[resize]) if resize else found


def _from_files(source, config):
    for name, part in (("processor_config.json", "image_processor"), ("preprocessor_config.json", None)):
        path = source.file(name)
        if not path.exists():
            continue
        document = read_json(path)
        document = document.get(part) if part and isinstance(document, dict) else document
        if document is None:  # a processor_config.json may say nothing of images
            continue
        if not isinstance(document, dict):
            raise InputError(f"'{path}' should hold an object, found {type(document).__name__}: download it again")
        return _read(document, config, path)
    return Preprocessing()


def _read(document, config, path):
    def refuse(name, expected):
        found = f"{document.get(name)!r:.80}"
        raise InputError(f"'{path}' has {name} {found}, but npgemma prepares images with {expected}")

    kind, side = document.get("image_processor_type"), config.vision.image_size
    if kind is not None and not (isinstance(kind, str) and kind.startswith("Siglip")):
        refuse("image_processor_type", "SiglipImageProcessor's steps")
    for name in document:
        if name.startswith("do_") and name not in FOLLOWED and document[name]:
            refuse(name, "resizing, scaling and normalisation only")
    if document.get("do_resize") is False:
        refuse("do_resize", f"a resize to {side} x {side} pixels")
    size = document.get("size")
    if size is not None and size not in ({"height": side, "width": side}, side):
        refuse("size", f"a resize to the {side} x {side} pixels of config.json")
    tokens = document.get("image_seq_length")
    if tokens is not None and tokens != config.image_tokens:
        refuse("image_seq_length", f"the {config.image_tokens} image tokens of config.json")
    filters = [resample.value for resample in Image.Resampling]
    resample = document.get("resample", Preprocessing.resample)
    resample = Preprocessing.resample if resample is None else resample
    if isinstance(resample, bool) or resample not in filters:
        refuse("resample", f"one of Pillow's filters, {min(filters)} to {max(filters)}")
    factor = 1.0 if document.get("do_rescale") is False else document.get("rescale_factor")
    factor = Preprocessing.factor if factor is None else factor
    if not _is_number(factor) or factor == 0:
        refuse("rescale_factor", "a factor that is a number")
    mean, deviation = (_channels(document, name, refuse) for name in ("image_mean", "image_std"))
    if 0 in deviation:
        refuse("image_std", "standard deviations above 0")
    if document.get("do_normalize") is False:
        mean, deviation = (0.0,) * 3, (1.0,) * 3
    return Preprocessing(resample, float(factor), mean, deviation)


def _channels(document, name, refuse):
    value = document.get(name)
    value = [0.5] * 3 if value is None else [value] * 3 if _is_number(value) else value
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
        refuse(name, "a number for each of three channels")
    return tuple(map(float, value))


def _is_number(value):
    return not isinstance(value, bool) and isinstance(value, (int, float)) and abs(value) < 1e6
