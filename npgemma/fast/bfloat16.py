"""bfloat16 with NumPy alone, which has no such type: arrays of its bits, in uint16."""

import numpy as np

from npgemma.fast import threads

# Entries widened at a time by a thread, and entries after which memory of the file is given back.
PIECE, STRETCH = 2**16, 2**24


def narrow(x):
    """Round float32 values to the nearest bfloat16, ties to even, and return the bits.

    Parameters
    ----------
    x : float array of any shape
        Finite values; rounded through float32.

    Returns
    -------
    uint16 array
        The upper half of the float32's bits; `npgemma.ops.widen` turns them back.

    Examples
    --------
    >>> [hex(bits) for bits in narrow(np.array([1.0, 1.00390625, 1.01171875]))]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    bits = np.asarray(x, dtype=np.float32).view(np.uint32)
    # Adding just under half of what is cut off, plus one if the kept part is odd, rounds ties to the even neighbour.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen_tensor(tensor):
    """Read a bfloat16 tensor as float32, on all cores, without ever holding much of it twice.

    Parameters
    ----------
    tensor : conversion.safetensors_file.Tensor

    Returns
    -------
    float32 array
        The same values as `npgemma.ops.widen` gives.
    """
    wide = np.empty(tensor.shape, dtype=np.float32)
    words, bits = wide.reshape(-1).view(np.uint32), tensor.array.reshape(-1)

    def work(start, stop):
        words[start:stop] = bits[start:stop]
        words[start:stop] <<= 16

    for first in range(0, bits.size, STRETCH):
        last = min(first + STRETCH, bits.size)
        threads.split(lambda start, stop, first=first: work(first + start, first + stop), last - first, PIECE)
        tensor.release(first, last)
    return wide
