"""What would turn a wrong array into the right one: another layout, a factor, an offset; and which rows are wrong."""

import math

import numpy as np

from npgemma.porting.coverage import fitting_layout
from npgemma.porting.difference import relative_l2
from npgemma.porting.judge import Judged

# The axes along which a mistake may be in some rows only: image or text, prompt or answer.
ROWS = "TSP"


def explain(judged: Judged, letters: str, sizes: dict[str, int]) -> list[str]:
    """Return sentences about a wrong array; ``letters`` are the axes of ours. Factors are named after the ``sizes`` of
    letters.
    """
    pair, budget = judged.pair, judged.budget
    axes = fitting_layout(pair.raw, pair.expected, letters, budget)
    misfit = [pair.misfit] if pair.misfit else []
    if axes:
        return [*misfit, f'the numbers are right in another layout: axes = "{axes}" would fit']
    if pair.found is None:
        return misfit
    if pair.expected.dtype.kind != "f":
        return misfit + _unequal(pair)
    infinite = pair.found.size - int(np.isfinite(pair.found).sum())
    if infinite:
        return [*misfit, f"{infinite} of {pair.found.size} entries are infinite or not a number"]
    expected, found = pair.expected.astype(np.float64), pair.found.astype(np.float64)
    return misfit + _rows(expected, found, letters, sizes, budget)


def _unequal(pair):
    """Say where whole numbers or truth values differ."""
    if pair.found.shape != pair.expected.shape:
        return []
    wrong = np.argwhere(pair.found != pair.expected)
    if not len(wrong):
        return []
    first = tuple(int(i) for i in wrong[0])
    return [
        f"{len(wrong)} of {pair.expected.size} entries differ, the first at {list(first)}: expected "
        f"{pair.expected[first]}, found {pair.found[first]}"
    ]


def _rows(expected, found, letters, sizes, budget):
    """Say how each run of neighbouring rows that differ alike differs; of the whole array, if there are many runs."""
    axis = next((letters.index(letter) for letter in ROWS if letter in letters), None)
    if axis is None:
        return [f"the whole array is {_way(expected, found, sizes, budget)}"]
    rows = zip(np.moveaxis(expected, axis, 0), np.moveaxis(found, axis, 0))
    ways = [_way(expected_row, found_row, sizes, budget) for expected_row, found_row in rows]
    runs = []
    for i, way in enumerate(ways):
        if runs and runs[-1][2] == way:
            runs[-1][1] = i
        else:
            runs.append([i, i, way])
    if len(runs) > 6:
        wrong = sum(way != "right" for way in ways)
        whole = _way(expected, found, sizes, budget)
        together = "" if whole == "wrong" else f"; all together are {whole}"
        return [f"{wrong} of {len(ways)} rows along {letters[axis]} are wrong{together}"]
    if len(runs) == 1:
        return [f"all rows are {runs[0][2]}"]
    return [f"rows {start} to {stop} along {letters[axis]} are {way}" for start, stop, way in runs]


def _way(expected, found, sizes, budget):
    """Return in words how one array differs from another; a factor or an offset must explain most of it."""
    apart = relative_l2(expected, found)
    if apart <= budget:
        return "right"
    explained = min(10 * budget, apart / 2)
    if not found.any():
        return "zero"
    norm = np.square(expected).sum()
    factor = float((expected * found).sum() / norm) if norm else 0.0
    if abs(factor - 1) > 10 * budget and factor and relative_l2(expected, found / factor) <= explained:
        return f"{factor:.4g}{_named(factor, sizes)} times what is expected"
    offset = float((found - expected).mean())
    if relative_l2(expected, found - offset) <= explained:
        return f"what is expected plus {offset:.4g}"
    return "wrong"


def _named(factor, sizes):
    """Name a factor after the size it may come from.

    Examples
    --------
    >>> _named(11.3137, {"D": 128})
    ' = sqrt(D)'
    """
    for letter, size in sizes.items():
        for name, value in ((letter, size), (f"sqrt({letter})", math.sqrt(size))):
            if size > 1 and math.isclose(abs(factor), value, rel_tol=1e-3):
                return f" = {name}"
            if size > 1 and math.isclose(abs(factor), 1 / value, rel_tol=1e-3):
                return f" = 1 / {name}"
    return ""
