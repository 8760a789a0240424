"""A set of difficult images and prompts, with the exact pixels and token ids that a port should make of them."""

import dataclasses
import json
import os
import pathlib
import tempfile

import numpy as np
from PIL import Image

from npgemma.errors import InputError
from npgemma.image import load_image
from npgemma.porting.arrays import read_arrays
from npgemma.porting.bounds import JPEG_LEVELS, LEVELS

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


def write_set(folder, side, tokenizer, preprocessing):
    """Write the set: ``images/``, ``prompts.json`` and what is expected, as ``.npy`` files.

    Parameters
    ----------
    folder : str or os.PathLike
        A new or empty folder.
    side : int
        Of the model's square image.
    tokenizer : npgemma.tokenizer.Tokenizer
    preprocessing : npgemma.image.Preprocessing
        The checkpoint's.

    Returns
    -------
    dict of str to int
        How many ``images`` and ``prompts``.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' should be a new or an empty folder")
    made = drawn()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The folder appears under its name only once it is complete.
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        part = pathlib.Path(place) / "set"
        _write(part, made, side, tokenizer, preprocessing)
        os.replace(part, folder)
    return {"images": len(made), "prompts": len(PROMPTS)}


def _write(folder, made, side, tokenizer, preprocessing):
    (folder / "images").mkdir(parents=True)
    for name, (image, how) in made.items():
        file = folder / "images" / name
        image.save(file, **how)
        for program, resample in RESAMPLE.items():
            rules = dataclasses.replace(preprocessing, resample=int(resample))
            pixels = load_image(file, side, rules).pixels_BYXC[0]
            _save(folder / "expected" / "pixels" / program / f"{file.stem}.npy", pixels)
    for i, prompt in enumerate(PROMPTS):
        _save(folder / "expected" / "ids" / f"{i}.npy", np.array(tokenizer.prompt(prompt)))
    (folder / "prompts.json").write_text(json.dumps(PROMPTS, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _save(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, array)


def check_inputs(folder, port, program="hugging_face"):
    """Compare a port's pixels and token ids with a set.

    Parameters
    ----------
    folder : str or os.PathLike
        From `write_set`.
    port : dict of str to array
        ``pixels/NAME`` for the image NAME, rows or channels first, and ``ids/0`` for the first prompt, and so on.
    program : str
        Whose way to resize the port follows: a key of ``RESAMPLE``.

    Returns
    -------
    dict
        ``passed``, and ``inputs``: for each, its ``name``, whether it is ``right``, and what is wrong in ``says``.

    Raises
    ------
    InputError
        If the port has none of the set's inputs.
    """
    expected = read_arrays(pathlib.Path(folder) / "expected")
    pixels = {name.rpartition("/")[2]: array for name, array in expected.items() if f"pixels/{program}/" in name}
    files = {file.stem: file for file in (pathlib.Path(folder) / "images").iterdir()}
    rows = [_check_pixels(stem, right, port, expected, files[stem], program) for stem, right in pixels.items()]
    rows += [_check_ids(name, right, port) for name, right in expected.items() if name.startswith("ids/")]
    if all(row["says"] == "not written" for row in rows):
        raise InputError("the port has none of the set's inputs: expected arrays such as pixels/palette and ids/0")
    return {"passed": all(row["right"] for row in rows), "program": program, "inputs": rows}


def _check_ids(name, right, port):
    found = port.get(name)
    if found is None:
        return {"name": name, "right": False, "says": "not written"}
    same = np.array_equal(found.reshape(-1), right)
    says = "" if same else f"expected {right.tolist()}, found {found.reshape(-1).tolist()}"
    return {"name": name, "right": same, "says": says}


def _check_pixels(stem, right, port, expected, file, program):
    name = f"pixels/{stem}"
    found = port.get(name)
    if found is None:
        return {"name": name, "right": False, "says": "not written"}
    found = found.reshape([size for size in found.shape if size != 1] if found.ndim == 4 else found.shape)
    if found.shape == right.shape[::-1] and found.shape != right.shape:
        found = found.transpose(1, 2, 0)
    if found.shape != right.shape:
        return {"name": name, "right": False, "says": f"expected the shape {right.shape}, found {found.shape}"}
    off = _levels(right, found)
    if off <= (JPEG_LEVELS if file.suffix == ".jpg" else LEVELS):
        return {"name": name, "right": True, "says": "" if off == 0 else f"up to {off:.2g} of 255 levels off"}
    cause = _cause(right, found, file, expected, stem, program)
    return {"name": name, "right": False, "says": f"up to {off:.3g} of 255 levels off{cause}"}


def _levels(right, found):
    """Return the largest difference in levels from 0 to 255."""
    return float(np.abs(right.astype(np.float64) - found).max() * 127.5)


def _cause(right, found, file, expected, stem, program):
    """Name the known way to read images whose pixels these are."""
    ways = {
        "channels are blue, green, red": right[..., ::-1],
        "values lie between 0 and 1": (right + 1) / 2,
        "values lie between 0 and 255": (right + 1) * 127.5,
    }
    ways |= {f"resized as {other} does": expected[f"pixels/{other}/{stem}"] for other in RESAMPLE if other != program}
    ways |= {way: _as_read(image, right.shape[0], program) for way, image in _otherwise(file)}
    fitting = [way for way, pixels in ways.items() if _levels(pixels, found) <= LEVELS]
    return f": {fitting[0]}" if fitting else ""


def _as_read(image, side, program):
    resized = image.resize((side, side), RESAMPLE[program])
    return np.asarray(resized).astype(np.float32) / np.float32(127.5) - 1


def _otherwise(file):
    """Yield the same file as other programs read it."""
    with Image.open(file) as image:
        image.load()
    yield "EXIF rotation or transparency is left out", image.convert("RGB")
    if image.mode.startswith("I"):
        low = np.minimum(np.asarray(image), 255).astype(np.uint8)
        yield "greys of 16 bits are cut off at 255", Image.fromarray(low).convert("RGB")
    layer = image.convert("RGBA")
    black = Image.new("RGBA", layer.size, "black")
    yield "transparent parts are put on black", Image.alpha_composite(black, layer).convert("RGB")
