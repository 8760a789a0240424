"""A set of difficult images and prompts, with the exact pixels and token ids that a port should make of them."""

import dataclasses
import json
import os
import pathlib
import tempfile
from typing import Any

import numpy as np
from PIL import Image

from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.images import open_image
from npgemma.image import Preprocessing, load_image
from npgemma.porting.arrays import checked, read_arrays
from npgemma.porting.bounds import JPEG_LEVELS, LEVELS
from npgemma.tokenizer import Tokenizer

PROMPTS = (
    "caption en", "detect red circle ; blue square", "answer en where is the café?", "", " two  spaces ",
    "ocr\nof two lines", "<loc0001> segment cat", "日本語 🙂", "UPPER lower 12345",
)  # fmt: skip
# The filters with which published programs resize.
RESAMPLE = {"hugging_face": Image.Resampling.BICUBIC, "big_vision": Image.Resampling.BILINEAR}


def drawn():
    """Return the images of the set: for each file name, an image and how it is saved."""
    Y, X = np.mgrid[0:60, 0:90]
    channels_YXC = np.stack([X * 2.8, Y * 4.2, (X // 9 + Y // 9) % 2 * 255], -1).astype(np.uint8)
    plain = Image.fromarray(channels_YXC)
    alpha = Image.fromarray(np.where((X - 45) ** 2 + (Y - 30) ** 2 < 500, 255, X * 2).astype(np.uint8))
    rotated = Image.Exif()
    rotated[0x0112] = 6  # to be rotated by a quarter, as telephones write it
    transparent = plain.copy()
    transparent.putalpha(alpha)
    palette = plain.quantize(16)
    return {
        "plain.png": (plain, {}),
        "palette.png": (palette, {}),
        "palette-transparent.png": (palette, {"transparency": 3}),
        "transparent.png": (transparent, {}),
        "exif.jpg": (plain, {"exif": rotated, "quality": 95}),
        "grey.png": (plain.convert("L"), {}),
        "grey-alpha.png": (transparent.convert("LA"), {}),
        "grey-16.png": (Image.fromarray((X * 700 + Y).astype(np.uint16)), {}),
        "one-bit.png": (plain.convert("1"), {}),
        "column.png": (plain.crop((20, 0, 21, 60)), {}),
        "wide.png": (plain.crop((0, 20, 90, 23)).resize((900, 30), Image.Resampling.NEAREST), {}),
        "single.png": (plain.crop((5, 5, 6, 6)), {}),
    }


def write_set(folder, side: int, tokenizer: Tokenizer, preprocessing: Preprocessing) -> dict[str, int]:
    """Write ``images/``, ``prompts.json`` and what is expected of a model with square images of this side, as ``.npy``
    files, to a new or empty folder; return how many ``images`` and ``prompts``.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' should be a new or an empty folder")
    images = drawn()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The folder appears under its name only once it is complete.
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        part = pathlib.Path(place) / "set"
        _write(part, images, side, tokenizer, preprocessing)
        os.replace(part, folder)
    return {"images": len(images), "prompts": len(PROMPTS)}


def _write(folder, images, side, tokenizer, preprocessing):
    (folder / "images").mkdir(parents=True)
    for name, (image, options) in images.items():
        file = folder / "images" / name
        image.save(file, **options)
        for program, resample in RESAMPLE.items():
            as_program = dataclasses.replace(preprocessing, resample=int(resample))
            pixels = load_image(file, side, as_program).pixels_BYXC[0]
            _save(folder / "expected" / "pixels" / program / f"{file.stem}.npy", pixels)
    for i, prompt in enumerate(PROMPTS):
        _save(folder / "expected" / "ids" / f"{i}.npy", np.array(tokenizer.prompt(prompt)))
    (folder / "prompts.json").write_text(json.dumps(PROMPTS, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _save(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, array)


def check_inputs(folder, port: dict[str, np.ndarray], program: str = "hugging_face") -> dict[str, Any]:
    """Compare a port's pixels and token ids with a set from `write_set`; return ``passed``, and for each of ``inputs``
    its ``name``, whether it is ``right``, and what is wrong in ``says``.

    The port has ``pixels/NAME`` for the image NAME, rows or channels first, ``ids/0`` for the first prompt, and so on.
    It resizes as the ``program`` does, a key of `RESAMPLE`. Raises `InputError` if it has none of the inputs.
    """
    port = checked(port, "the port")
    expected, files = _read_set(pathlib.Path(folder))
    pixels = {name.rpartition("/")[2]: array for name, array in expected.items() if f"pixels/{program}/" in name}
    outcomes = {
        f"pixels/{stem}": _check_pixels(port.get(f"pixels/{stem}"), right, expected, files[stem], program)
        for stem, right in pixels.items()
    }
    ids = {name: right for name, right in expected.items() if name.startswith("ids/")}
    outcomes |= {name: _check_ids(port.get(name), right) for name, right in ids.items()}
    rows = [{"name": name, "right": passed, "says": says} for name, (passed, says) in outcomes.items()]
    if all(row["says"] == "not written" for row in rows):
        raise InputError("the port has none of the set's inputs: expected arrays such as pixels/palette and ids/0")
    return {"passed": all(row["right"] for row in rows), "program": program, "inputs": rows}


def _read_set(folder):
    """Return the arrays of a set and, by their names, its images; InputError if it is not complete."""
    expected, files = read_arrays(folder / "expected"), {file.stem: file for file in (folder / "images").glob("*")}
    shapes = {name: array.shape for name, array in expected.items() if name.startswith("pixels/")}
    stems, side = {name.rpartition("/")[2] for name in shapes}, max(sum(shapes.values(), ()), default=0)
    whole = {f"pixels/{program}/{stem}": (side, side, 3) for program in RESAMPLE for stem in stems & files.keys()}
    if shapes != whole:
        raise InputError(f"'{folder}' is no complete set: write one with npgemma conformance --out DIR")
    return expected, files


def _check_ids(found, right):
    """Say whether ids are right, and what is wrong with them."""
    if found is None:
        return False, "not written"
    ids, expected = found.reshape(-1).tolist(), right.tolist()
    return (True, "") if ids == expected else (False, f"expected {shown(expected, 200)}, found {shown(ids, 200)}")


def _check_pixels(found, right, expected, file, program):
    """Say whether pixels are right, and how far and why they are off."""
    if found is None:
        return False, "not written"
    found = found.reshape([size for size in found.shape if size != 1] if found.ndim == 4 else found.shape)
    if found.shape == right.shape[::-1] and found.shape != right.shape:
        found = found.transpose(1, 2, 0)
    if found.shape != right.shape:
        return False, f"expected the shape {right.shape}, found {found.shape}"
    off = _levels(right, found)
    if off <= (JPEG_LEVELS if file.suffix == ".jpg" else LEVELS):
        return True, "" if off == 0 else f"up to {off:.2g} of 255 levels off"
    return False, f"up to {off:.3g} of 255 levels off{_cause(right, found, file, expected, program)}"


def _levels(right, found):
    """Return the largest difference in levels from 0 to 255."""
    return float(np.abs(right.astype(np.float64) - found).max() * 127.5)


def _cause(right, found, file, expected, program):
    """Name the known way to read images that gives these pixels."""
    known = {
        "channels are blue, green, red": right[..., ::-1],
        "values lie between 0 and 1": (right + 1) / 2,
        "values lie between 0 and 255": (right + 1) * 127.5,
    }
    others = [other for other in RESAMPLE if other != program]
    known |= {f"resized as {other} does": expected[f"pixels/{other}/{file.stem}"] for other in others}
    known |= {way: _as_read(image, right.shape[0], program) for way, image in _otherwise(file)}
    fitting = [way for way, pixels in known.items() if _levels(pixels, found) <= LEVELS]
    return f": {fitting[0]}" if fitting else ""


def _as_read(image, side, program):
    resized = image.resize((side, side), RESAMPLE[program])
    return np.asarray(resized).astype(np.float32) / np.float32(127.5) - 1


def _otherwise(file):
    """Yield the same file as other programs read it."""
    image = open_image(file)
    yield "EXIF rotation or transparency is left out", image.convert("RGB")
    if image.mode.startswith("I"):
        low = np.minimum(np.asarray(image), 255).astype(np.uint8)
        yield "greys of 16 bits are cut off at 255", Image.fromarray(low).convert("RGB")
    layer = image.convert("RGBA")
    black = Image.new("RGBA", layer.size, "black")
    yield "transparent parts are put on black", Image.alpha_composite(black, layer).convert("RGB")
