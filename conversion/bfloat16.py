"""bfloat16 with NumPy alone, which has no such type: arrays of its bits, in uint16."""

import numpy as np


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
