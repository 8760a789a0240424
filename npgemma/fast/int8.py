"""Weights in a quarter of the memory: whole numbers from -127 to 127, with one factor for each row.

``weight ≈ factor * number``; the factor is the row's largest entry over 127, so an entry is off by at most half of it.
Activations stay float32. Only matrices are stored so: biases and norms are small, and count more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npgemma.fast import threads
from npgemma.fast.products import product_in_blocks

HIGHEST = 127
# Entries rounded at a time.
PIECE = 2**20


@dataclass(frozen=True)
class Int8Weight:
    """A weight in eight bits; it stands where an array stands in the tree."""

    number_NK: np.ndarray  # as stored: rows are what comes out of a product, columns what is summed
    factor_N: np.ndarray
    view: Callable  # turns an array of the stored shape into the weight's own axes

    dtype = "int8"

    @property
    def shape(self):
        """The shape of the weight's own axes."""
        return self.view(self.number_NK).shape

    @property
    def ndim(self):
        """Number of the weight's own axes."""
        return len(self.shape)

    @property
    def size(self):
        """Number of entries."""
        return self.number_NK.size

    def __getitem__(self, rows):
        """Return some rows of a table as float32."""
        return self.number_NK[rows] * self.factor_N[rows][..., None]

    def __array__(self, dtype=None, copy=None):
        """Return the whole weight as float32: to look at it, not to calculate with."""
        whole = self.view(self.number_NK * self.factor_N[:, None])
        return whole if dtype is None else whole.astype(dtype)

    def multiply(self, x_RK, order):
        """Return the product y_RN: by whole numbers, which lie in the right order, and then by the rows' factors."""
        y_RN = product_in_blocks([x_RK], self.number_NK, lambda number, parts: np.copyto(parts[0], number))
        y_RN *= self.factor_N
        return y_RN


def quantize(stored, view, wide=lambda part: part, release=lambda start, stop: None) -> Int8Weight:
    """Round a stored weight, whose first axis is what comes out of a product, to eight bits.

    ``view`` turns an array of this shape into the weight's own axes, and ``wide`` a part of it into numbers that NumPy
    can calculate with (needed for bfloat16 bits). ``release`` is called with the first and last entry of each part once
    it has been read.
    """
    rows_NK = stored.reshape(len(stored), -1)
    number_NK, factor_N = np.empty(rows_NK.shape, dtype=np.int8), np.empty(len(rows_NK), dtype=np.float32)
    K = rows_NK.shape[1]

    def work(start, stop):
        part = wide(rows_NK[start:stop]).astype(np.float32, copy=False)
        factor_N[start:stop] = factor = np.maximum(part.max(axis=1), -part.min(axis=1)) / HIGHEST
        # A row of zeros has any factor.
        part = part / np.where((factor > 0) & np.isfinite(factor), factor, 1)[:, None]
        if not np.isfinite(factor).all():
            # What is not finite is kept in the factor alone, where the model looks for it.
            part = np.nan_to_num(part, posinf=0, neginf=0)
        number_NK[start:stop] = np.rint(part, out=part)

    step = max(1, PIECE // K)
    for first in range(0, len(rows_NK), 64 * step):
        last = min(first + 64 * step, len(rows_NK))
        threads.split(lambda start, stop, first=first: work(first + start, first + stop), last - first, step)
        release(first * K, last * K)
    return Int8Weight(number_NK, factor_N, lambda array: view(array.reshape(stored.shape)))
