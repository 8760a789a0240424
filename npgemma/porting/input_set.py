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
from npgemma.files.images import ORIENTATION
from npgemma.image import Preprocessing, load_image
from npgemma.porting.arrays import checked, read_arrays
from npgemma.porting.bounds import DRIFT, JPEG_LEVELS, LEVELS
from npgemma.porting.misreadings import RESAMPLE, VALUES, causes_of, levels_off
from npgemma.tokenizer import Tokenizer

PROMPTS = (
    "caption en", "detect red circle ; blue square", "answer en where is the café?", "", " two  spaces ",
    "ocr\nof two lines", "<loc0001> segment cat", "日本語 🙂", "UPPER lower 12345",
)  # fmt: skip
NOT_WRITTEN = "not written"
EXACT = 0.02  # of a level: a cause that gives such pixels is theirs, though they would pass


def drawn(side: int):
    """Return the images of the set: for each file name, an image and how it is saved.

    Most are larger than the model's ``side``, not square, and finely striped: antialiasing, crops and padding show.
    """
    width, height = round(3.1 * side), round(2.3 * side)
    Y, X = np.mgrid[0:height, 0:width]
    checks_YX = (X * 10 // width + Y * 7 // height) % 2 * 255
    channels_YXC = np.stack([X * 255 // width, Y * 255 // height, checks_YX], -1)
    fine_YX = (Y * 9 // height % 2 == 1) & (X % 5 < 2)
    channels_YXC[fine_YX] = 255 - channels_YXC[fine_YX]
    plain = Image.fromarray(channels_YXC.astype(np.uint8))
    inside_YX = (X - width / 2) ** 2 + (Y - height / 2) ** 2 < (height / 3) ** 2
    alpha = Image.fromarray(np.where(inside_YX, 255, X * 180 // width).astype(np.uint8))
    rotated = Image.Exif()
    rotated[ORIENTATION] = 6  # to be rotated by a quarter, as telephones write it
    transparent = plain.copy()
    transparent.putalpha(alpha)
    palette = plain.quantize(16)
    low = height // 3
    return {
        "plain.png": (plain, {}),
        "palette.png": (palette, {}),
        "palette-transparent.png": (palette, {"transparency": 3}),
        "transparent.png": (transparent, {}),
        # Of full colour: decoders differ in how they enlarge halved ones.
        "exif.jpg": (plain, {"exif": rotated, "quality": 95, "subsampling": 0}),
        "grey.png": (plain.convert("L"), {}),
        "grey-alpha.png": (transparent.convert("LA"), {}),
        "grey-16.png": (Image.fromarray((X * 60000 // width + Y).astype(np.uint16)), {}),
        "one-bit.png": (plain.convert("1"), {}),
        "column.png": (plain.crop((width // 4, 0, width // 4 + 1, height)), {}),
        "wide.png": (plain.crop((0, low, width, low + 3)).resize((8 * side, side // 4), Image.Resampling.NEAREST), {}),
        "single.png": (plain.crop((width // 3, low, width // 3 + 1, low + 1)), {}),
    }


def write_set(folder, side: int, tokenizer: Tokenizer, preprocessing: Preprocessing) -> dict[str, int]:
    """Write ``images/``, ``prompts.json`` and what is expected of a model with square images of this side, as ``.npy``
    files, to a new or empty folder; return how many ``images`` and ``prompts``.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' should be a new or an empty folder")
    images = drawn(side)
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
    its ``name``, whether it is ``right``, what is wrong in ``says``, and its known ``causes``. Those that
    all wrong images share, where there are several, are the ``causes`` beside, and ``says`` does not repeat them.

    The port has ``pixels/NAME`` for the image NAME, rows or channels first, ``ids/0`` for the first prompt, and so on.
    It resizes as the ``program`` does, a key of `RESAMPLE`. Raises `InputError` if it has none of the inputs.
    """
    port = checked(port, "the port")
    expected, files = _read_set(pathlib.Path(folder))
    pixels = {name.rpartition("/")[2]: array for name, array in expected.items() if f"pixels/{program}/" in name}
    outcomes = {
        f"pixels/{stem}": _check_pixels(port.get(f"pixels/{stem}"), right, files[stem], program)
        for stem, right in pixels.items()
    }
    wrong = [causes for is_right, says, causes in outcomes.values() if not is_right and says != NOT_WRITTEN]
    in_all = [cause for cause in wrong[0] if all(cause in causes for causes in wrong)] if wrong[1:] else []
    ids = {name: right for name, right in expected.items() if name.startswith("ids/")}
    outcomes |= {name: (*_check_ids(port.get(name), right), ()) for name, right in ids.items()}
    rows = []
    for name, (is_right, says, causes) in outcomes.items():
        rest = " and ".join(cause for cause in causes if cause not in in_all)
        rows.append({"name": name, "right": is_right, "says": f"{says}: {rest}" if rest else says, "causes": causes})
    if all(row["says"] == NOT_WRITTEN for row in rows):
        raise InputError("the port has none of the set's inputs: expected arrays such as pixels/palette and ids/0")
    return {"passed": all(row["right"] for row in rows), "program": program, "causes": in_all, "inputs": rows}


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
        return False, NOT_WRITTEN
    ids, expected = found.reshape(-1).tolist(), right.tolist()
    return (True, "") if ids == expected else (False, f"expected {shown(expected, 200)}, found {shown(ids, 200)}")


def _check_pixels(found, right, file, program):
    """Say whether pixels are right, how far they are off, and the causes."""
    if found is None:
        return False, NOT_WRITTEN, ()
    found = found.reshape([size for size in found.shape if size != 1] if found.ndim == 4 else found.shape)
    if found.shape == right.shape[::-1] and found.shape != right.shape:
        found = found.transpose(1, 2, 0)
    if found.shape != right.shape:
        return False, f"expected the shape {right.shape}, found {found.shape}", ()
    off, limit = levels_off(right, found), JPEG_LEVELS if file.suffix == ".jpg" else LEVELS
    says = f"up to {off:.3g} of 255 levels off" if off else ""
    if not np.isfinite(off):
        return False, "not finite", ()
    if off > limit:
        return False, says, causes_of(found, file, program, limit)
    drift = float((found.astype(np.float64) - right).mean() * 127.5)
    if abs(drift) > DRIFT and limit == LEVELS:
        return False, f"{says}, {drift:+.2g} on average", causes_of(found, file, program, EXACT)
    causes = causes_of(found, file, program, EXACT, most=1) if off else ()
    # A formula that is not the right one is wrong, however near its values are; a filter may round otherwise.
    return not any(cause in VALUES for cause in causes), says, causes
