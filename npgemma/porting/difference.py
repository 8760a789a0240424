"""How far two arrays are apart: the one comparison of all that is judged here."""

from dataclasses import dataclass

import numpy as np

# Entries compared at a time.
PIECE = 2**16


@dataclass(frozen=True)
class Difference:
    """How far an array is from the one expected."""

    relative_l2: float  # |found - expected| / |expected|: how much is wrong
    norm_ratio: float  # |found| / |expected|: 1 unless a scale is wrong, which a cosine would not show
    largest: float  # largest difference over the largest expected entry: is it everywhere or in one place


def difference(expected: np.ndarray, found: np.ndarray) -> Difference:
    """Compare two arrays of the same name; everything is infinite where shapes differ, or one has NaN or infinities
    that the other has not.

    Entries that are infinite in both, as masked scores are, count as equal. Whole numbers and truth values must be
    equal.
    """
    different = Difference(np.inf, np.inf, np.inf)
    if expected.shape != found.shape:
        return different
    if expected.dtype.kind != "f":
        return Difference(0.0, 1.0, 0.0) if np.array_equal(expected, found) else different
    # Piece by piece, so that what is made on the way stays in the processor's cache.
    squares, highest, flat = np.zeros(3), np.zeros(2), (expected.reshape(-1), found.reshape(-1))
    for start in range(0, expected.size, PIECE):
        one, other = (array[start : start + PIECE].astype(np.float64) for array in flat)
        finite = np.isfinite(one)
        if not finite.all():
            if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
                return different
            one, other = one[finite], other[finite]
        if not np.isfinite(other).all():
            return different
        error = other - one
        # Not a product of vectors: for these BLAS wakes its threads, which takes longer than to add up a piece.
        squares += [np.square(values).sum() for values in (one, other, error)]
        highest = np.maximum(highest, [np.abs(values).max(initial=0) for values in (one, error)])
    norm, found_norm, error_norm = np.sqrt(squares).tolist()
    if error_norm == 0:
        return Difference(0.0, 1.0, 0.0)
    # An expected array of nothing but zeros leaves nothing to relate to.
    norm, largest = norm or 1.0, float(highest[0]) or 1.0
    return Difference(error_norm / norm, found_norm / norm, float(highest[1]) / largest)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Say whether two arrays are equal; NaN equals NaN."""
    if np.array_equal(one, other):
        return True
    # Looked for last: most arrays have none.
    has_nan = one.shape == other.shape and other.dtype.kind == "f" and np.isnan(other).any()
    return bool(has_nan and np.array_equal(one, other, equal_nan=True))
