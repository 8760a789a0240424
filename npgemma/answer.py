"""Read an answer's text: the objects it names, their boxes and their masks.

*Next:* ``machinery/sampling.py``. *Skip on a first reading:* `mask_lengths`, `place_mask` and `as_json`.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from npgemma.params import MaskParams
from npgemma.segmentation import decode_masks

# ``<locYMIN><locXMIN><locYMAX><locXMAX> label``, with sixteen ``<seg>`` before the label where a mask was asked for;
# semicolons stand between objects. Another number of ``<seg>`` is no mask, but the label is still read.
_OBJECT = re.compile(r"((?:<loc\d{4}>){4})((?:<seg\d{3}>)*)\s*([^;<>]*)")
MASK_TOKENS = 16
HIGHEST_LOCATION = 1023


@dataclass(frozen=True)
class Detection:
    """An object in an image.

    Parameters
    ----------
    label : str
    box : (float, float, float, float)
        Left, top, right, bottom, in pixels from the image's top left corner.
    mask : bool array (rows, columns), optional
        Which of the image's pixels show it.
    """

    label: str
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None


def find_objects(text: str, size: tuple[int, int], mask_params: MaskParams | None = None) -> list[Detection]:
    """Read the boxes and masks of an answer to ``detect ...`` or ``segment ...``.

    Parameters
    ----------
    text : str
        ``<loc0102><loc0051><loc0512><loc0900> cat ; <loc...> dog``; other text is passed over.
    size : (int, int)
        Columns and rows of the image that was asked about, as a person sees it (`npgemma.image.upright_rgb`).
    mask_params : MaskParams, optional
        From `conversion.codebook.read_codebook`; without it masks are left out.

    Returns
    -------
    list of Detection
        In the order of the answer. A box without area, which the model's authors count as wrong, is left out.

    Examples
    --------
    Four locations are one box: top, left, bottom, right, y before x. 256 of 1023 is about a quarter, 512 about a half:

    >>> [found] = find_objects("<loc0256><loc0512><loc0512><loc1023> cat", (640, 480))
    >>> [round(edge) for edge in found.box]
    [320, 120, 640, 240]
    >>> find_objects("<loc0000><loc0000><loc1023><loc1023> cat", (640, 480))
    [Detection(label='cat', box=(0.0, 0.0, 640.0, 480.0), mask=None)]
    """
    columns, rows = size
    found = []
    for locations, codes, label in _OBJECT.findall(text):
        top, left, bottom, right = map(fraction, re.findall(r"\d+", locations))
        # Tokens end at <loc1023>; a text can hold more, such as <loc9999>.
        if top < bottom <= 1 and left < right <= 1:
            box = (left * columns, top * rows, right * columns, bottom * rows)
            code_BM = np.array([[int(code) for code in re.findall(r"\d+", codes)]])
            is_mask = code_BM.size == MASK_TOKENS
            has_mask = mask_params is not None and is_mask and code_BM.max() < len(mask_params.code)
            mask = place_mask(decode_masks(code_BM, mask_params)[0], box, size) if has_mask else None
            found.append(Detection(label.strip(), box, mask))
    return found


def fraction(location: str) -> float:
    """Return the part of an image's side that a location means: n / 1023, for n from 0 to 1023.

    The model was trained on ``round(fraction * 1023)`` (``big_vision/pp/proj/paligemma/segmentation.py``). Many
    programs divide by 1024 instead, which moves the far edge by a thousandth of the side.

    Why neighbours of the right location become likely too: of two images that look the same to the model, one has 430
    as the right answer and the other 432; the loss is lowest if the model gives each location the share of cases in
    which it is right. The logit of ``<locN>`` is the dot product of row N of the table with the final vector v.
    Whenever N or N + 1 is right for nearly the same v, the gradient adds a little of v to that row, so both rows come
    to point along the same v's, however they started. (The embedded checkpoint's training was short and was helped: in
    ``tiny/training/places.py`` rows of near locations start alike, and a near miss counts as nearly right.)

    Examples
    --------
    Two locations, each right half of the time: the mean loss if the first gets 9/10, 7/10 or 1/2 of the probability:

    >>> import math
    >>> [round(-(math.log(first) + math.log(1 - first)) / 2, 2) for first in (0.9, 0.7, 0.5)]
    [1.2, 0.78, 0.69]
    """
    return int(location) / HIGHEST_LOCATION


def mask_lengths(text: str) -> list[int]:
    """Return how many mask tokens each object of an answer has, where it has any.

    Examples
    --------
    >>> mask_lengths("<loc0000><loc0000><loc1023><loc1023><seg001><seg002> cat")
    [2]
    """
    return [codes.count("<seg") for _, codes, _ in _OBJECT.findall(text) if codes]


def place_mask(mask_YX: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Stretch a mask over its box in the image.

    Parameters
    ----------
    mask_YX : array
        From `npgemma.segmentation.decode_masks`: over 0 is inside.
    box : (float, float, float, float)
        Left, top, right, bottom, in pixels.
    size : (int, int)
        Columns and rows of the image.

    Returns
    -------
    bool array (rows, columns)
        Which pixels belong to it; the box is rounded to whole pixels, at least one.

    Notes
    -----
    Values are interpolated linearly before they are compared with 0, as in big_vision's evaluation.
    """
    columns, rows = size
    left, top = min(round(box[0]), columns - 1), min(round(box[1]), rows - 1)
    right, bottom = max(round(box[2]), left + 1), max(round(box[3]), top + 1)
    cells = Image.fromarray(np.asarray(mask_YX, dtype=np.float32))
    inside = np.zeros((rows, columns), dtype=bool)
    stretched = cells.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    inside[top:bottom, left:right] = np.asarray(stretched) > 0
    return inside


def as_json(detection: Detection) -> dict[str, Any]:
    """Return an object as plain values that JSON can hold.

    Parameters
    ----------
    detection : Detection

    Returns
    -------
    dict
        ``label``, ``box`` and, if it has one, ``mask``: ``size`` (rows, columns) and ``counts``, the lengths of runs of
        pixels outside and inside in turn, column by column from the left, beginning outside (COCO's run-length code).

    Examples
    --------
    >>> import numpy as np
    >>> as_json(Detection("dot", (1.0, 0.0, 2.0, 1.0), np.array([[False, True], [False, False]])))["mask"]
    {'size': [2, 2], 'counts': [2, 1, 1]}
    """
    found: dict[str, Any] = {"label": detection.label, "box": detection.box}
    if detection.mask is not None:
        # One entry in front and one behind, so that the first and the last run have an end too.
        inside = np.concatenate([[False], detection.mask.ravel(order="F"), [not detection.mask[-1, -1]]])
        (changes,) = np.nonzero(inside[1:] != inside[:-1])
        counts = np.diff(np.concatenate([[0], changes]))
        found["mask"] = {"size": list(detection.mask.shape), "counts": counts.tolist()}
    return found
