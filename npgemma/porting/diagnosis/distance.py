"""How far two arrays are apart."""

import math

import numpy as np


def distance(expected, found):
    """Return the relative L2 distance of two arrays; infinite for other shapes, or NaN and infinity in one alone.

    Parameters
    ----------
    expected, found : arrays
        Of integers or bools only equal ones are at distance 0.

    Returns
    -------
    float
    """
    if expected.shape != found.shape:
        return math.inf
    if expected.dtype.kind != "f" or found.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, found) else math.inf
    with np.errstate(invalid="ignore", over="ignore"):  # two infinities: below
        apart, norm = float(np.linalg.norm(found - expected)), float(np.linalg.norm(expected))
    if math.isfinite(apart) and math.isfinite(norm):
        return apart / (norm or 1.0)
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(found)):
        return math.inf
    expected, found = np.where(finite, expected, 0.0), np.where(finite, found, 0.0)
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / (norm or 1.0)


def same(one, other):
    """Say whether two arrays are equal; NaN equals NaN.

    Parameters
    ----------
    one, other : arrays

    Returns
    -------
    bool
    """
    if np.array_equal(one, other):
        return True
    # Looked for last: most arrays have none.
    has_nan = one.shape == other.shape and other.dtype.kind == "f" and np.isnan(other).any()
    return bool(has_nan and np.array_equal(one, other, equal_nan=True))
