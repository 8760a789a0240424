"""bfloat16 with NumPy alone, which has no such type: its bits are held in uint16, and widened to float32 to be used.

A bfloat16 is the upper half of a float32, so widening shifts bits and is exact.
"""

from dataclasses import dataclass

import numpy as np

from npgemma.fast import threads
from npgemma.fast.products import product_in_blocks, rows_of

# Entries that a thread widens at a time, and entries after which memory of the file is given back.
PIECE, STRETCH = 2**16, 2**24


def narrow(x):
    """Round finite float values (through float32) to the nearest bfloat16, ties to even; return the bits as uint16.

    >>> import numpy as np
    >>> [hex(bits) for bits in narrow(np.array([1.0, 1.00390625, 1.01171875]))]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    bits = np.asarray(x, dtype=np.float32).view(np.uint32)
    # Adding just under half of what is cut off, plus one if the kept part is odd, rounds ties to the even neighbour.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen(bits):
    """Return the float32 values of bfloat16 bits (uint16), exactly.

    >>> import numpy as np
    >>> widen(np.array([0x3F80, 0xC049], dtype=np.uint16))
    array([ 1.      , -3.140625], dtype=float32)
    """
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def widen_in_pieces(bits, release=lambda start, stop: None):
    """`widen` a large array, perhaps mapped from a file, on all cores, without ever holding much of it twice.

    ``release`` is called with the first and last entry of each stretch once it has been read.
    """
    wide = np.empty(bits.shape, dtype=np.float32)
    words, flat = wide.reshape(-1).view(np.uint32), bits.reshape(-1)

    def work(start, stop):
        words[start:stop] = flat[start:stop]
        words[start:stop] <<= 16

    for first in range(0, flat.size, STRETCH):
        last = min(first + STRETCH, flat.size)
        threads.split(lambda start, stop, first=first: work(first + start, first + stop), last - first, PIECE)
        release(first, last)
    return wide


@dataclass(frozen=True)
class BFloat16Weight:
    """A matrix held in bfloat16; it stands where an array stands in the tree."""

    bits: np.ndarray  # uint16, in the weight's own axes

    dtype = "bfloat16"

    @property
    def shape(self):
        """The shape of the weight's own axes."""
        return self.bits.shape

    @property
    def ndim(self):
        """Number of axes."""
        return self.bits.ndim

    @property
    def size(self):
        """Number of entries."""
        return self.bits.size

    def __getitem__(self, rows):
        """Return some rows of a table as float32."""
        return widen(self.bits[rows])

    def __array__(self, dtype=None, copy=None):
        """Return the whole weight as float32: to look at it, not to calculate with."""
        whole = widen(self.bits)
        return whole if dtype is None else whole.astype(dtype)

    def multiply(self, x_RK, order):
        """Return the product y_RN, for which the weight is widened block by block; the order is `products.layout`'s."""
        bits_NK = rows_of(self.bits, order, x_RK.shape[1])
        K = bits_NK.shape[1]
        if K % 2 or bits_NK.strides[1] != bits_NK.itemsize or bits_NK.strides[0] % 4:
            return product_in_blocks([x_RK], bits_NK, _write_wide)
        # Two bfloat16 side by side are one 32-bit word, and two instructions take it apart. That leaves even and odd
        # channels in two halves, so the activations are parted alike.
        halves = [x_RK[:, half::2].copy(order="K") for half in (0, 1)]
        return product_in_blocks(halves, bits_NK.view(np.uint32), _write_halves)


def _write_wide(bits, parts):
    np.left_shift(bits, 16, out=parts[0].view(np.uint32), dtype=np.uint32)


def _write_halves(words, parts):
    np.left_shift(words, 16, out=parts[0].view(np.uint32))
    np.bitwise_and(words, 0xFFFF0000, out=parts[1].view(np.uint32))
