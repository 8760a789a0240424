"""How far two arrays are apart: the one comparison of all that is judged here."""

import math
from dataclasses import dataclass

import numpy as np

# Entries compared at a time; and those of a product of vectors, for more of which BLAS wakes its threads, which takes
# longer than to add up a piece.
PIECE, SMALL = 2**16, 2**13


@dataclass(frozen=True)
class Difference:
    """How far an array is from the one expected."""

    relative_l2: float  # |found - expected| / |expected|: how much is wrong
    norm_ratio: float  # |found| / |expected|: 1 unless a scale is wrong, which a cosine would not show
    largest: float  # largest difference over the largest expected entry: is it everywhere or in one place


def difference(expected: np.ndarray, found: np.ndarray) -> Difference:
    """Compare two arrays of the same name; everything is infinite where shapes differ, or one has NaN or infinities
    that the other has not.

    Entries that are infinite in both, as masked scores are, or NaN in both count as equal. Whole numbers and truth
    values must be equal.
    """
    relative_l2, norm_ratio = _ratios(expected, found)
    decided = relative_l2 in (0.0, math.inf)
    return Difference(relative_l2, norm_ratio, relative_l2 if decided else _largest(expected, found))


def relative_l2(expected: np.ndarray, found: np.ndarray) -> float:
    """Return that part of a `Difference` alone: what verdicts go by."""
    return _ratios(expected, found)[0]


def _ratios(expected, found):
    """Return the first two parts of a `Difference`."""
    with np.errstate(all="ignore"):  # infinities are looked at once a sum has one
        pieces = list(_pieces(expected, found))
    if None in pieces:
        return math.inf, math.inf
    norm, found_norm, error_norm = (math.sqrt(sum(squares)) for squares in zip((0, 0, 0), *pieces))
    # An expected array of nothing but zeros leaves nothing to relate to.
    return (error_norm / (norm or 1.0), found_norm / (norm or 1.0)) if error_norm else (0.0, 1.0)


def _pieces(expected, found):
    """Yield the sums of squares of both arrays and of their difference, piece by piece; None if nothing is comparable.

    So what is made on the way stays in the processor's cache.
    """
    if expected.shape != found.shape:
        yield None
    elif expected.dtype.kind != "f":
        yield (0.0, 0.0, 0.0) if np.array_equal(expected, found) else None
    else:
        for one, other in _parts(expected, found):
            sums = _squares(one, other)
            # Only sums that are not finite say that any entry is not.
            yield sums if math.isfinite(sum(sums)) else _of_finite(one, other)


def _parts(expected, found):
    """Yield equal parts of both arrays in float64, one after the other."""
    flat = expected.reshape(-1), found.reshape(-1)
    for start in range(0, expected.size, PIECE):
        yield [array[start : start + PIECE].astype(np.float64, copy=False) for array in flat]


def _squares(one, other):
    error = other - one
    if one.size <= SMALL:
        return float(one.dot(one)), float(other.dot(other)), float(error.dot(error))
    return tuple(float(np.square(values).sum()) for values in (one, other, error))


def _of_finite(one, other):
    """Return the sums over the entries that are finite in both; None if others are not the same in both."""
    finite = np.isfinite(one)
    if not np.isfinite(other[finite]).all() or not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return None
    return _squares(one[finite], other[finite])


def _largest(expected, found):
    """Return the largest difference over the largest expected entry, of those that are finite."""
    highest = np.zeros(2)
    for one, other in _parts(expected, found):
        finite = np.isfinite(one)
        parts = one[finite], other[finite] - one[finite]
        highest = np.maximum(highest, [np.abs(values).max(initial=0) for values in parts])
    return float(highest[1]) / (float(highest[0]) or 1.0)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Say whether two arrays are equal; NaN equals NaN."""
    if np.array_equal(one, other):
        return True
    # Looked for last: most arrays have none.
    has_nan = one.shape == other.shape and other.dtype.kind == "f" and np.isnan(other).any()
    return bool(has_nan and np.array_equal(one, other, equal_nan=True))
