"""Products of activations with weights, as fast as the weights can be read.

`npgemma.ops.einsum` comes here with every formula that multiplies activations by a weight. All of them are one product
of matrices, ``x_RK @ weight_NK.T``: R rows of activations, K channels that are summed, N that come out. A checkpoint
stores every weight as N rows of K, which is how they lie in memory.

While a picture is read R is large and arithmetic is the limit: that is left to the matrix library. A token is R = 1,
and then the limit is how fast the weights come out of memory; narrower weights come sooner. Those are widened in blocks
that fit a core's cache, used there, and forgotten.
"""

import functools
import math
import threading

import numpy as np

from npgemma import threads
from npgemma.int8 import Int8Weight

# Weights widened at a time: small enough for a core's cache, large enough that Python's own work does not count.
BLOCK = 2**19
# Up to so many rows of activations are multiplied one by one; with more, larger blocks multiply faster.
FEW, LARGE_BLOCK = 12, 2**21
_memory = threading.local()


@functools.cache
def layout(formula):
    """Say how a formula is a product of matrices.

    Parameters
    ----------
    formula : str
        ``"BTNH,NHD->BTD"``.

    Returns
    -------
    (int, tuple of int) or None
        How many leading axes of the activations stay, and the order of the weight's axes that puts those that come out
        before those that are summed. None if an axis runs through both operands and the result: then it is no such
        product.

    Examples
    --------
    >>> layout("BTNH,NHD->BTD"), layout("BTKGH,BSKH->BKGTS")
    ((2, (2, 0, 1)), None)
    """
    operands, result = formula.split("->")
    activations, _, weight = operands.partition(",")
    summed = "".join(letter for letter in weight if letter in activations)
    out = "".join(letter for letter in weight if letter not in activations)
    kept = activations.removesuffix(summed)
    if kept + summed != activations or kept + out != result:
        return None
    return len(kept), tuple(weight.index(letter) for letter in out + summed)


def multiply(x, weight, kept, order):
    """Multiply activations by a weight.

    Parameters
    ----------
    x : array
    weight : array or Int8Weight
        ``uint16`` stands for bfloat16 bits.
    kept : int
    order : tuple of int
        Both from `layout`.

    Returns
    -------
    array
    """
    out_axes = [weight.shape[axis] for axis in order[: weight.ndim - (x.ndim - kept)]]
    x_RK = x.reshape(math.prod(x.shape[:kept]), -1)
    if isinstance(weight, Int8Weight):
        y_RN = _int8_product(x_RK, weight)
    else:
        # A view, not a copy: in a checkpoint, axes that are merged here lie side by side.
        weight_NK = weight.transpose(order).reshape(math.prod(out_axes), -1)
        y_RN = _bfloat16_product(x_RK, weight_NK) if weight.dtype == np.uint16 else _product(x_RK, weight_NK)
    return y_RN.reshape(*x.shape[:kept], *out_axes)


def _product(x_RK, weight_NK):
    R = len(x_RK)
    if R == 1:
        return (weight_NK @ x_RK[0])[None]
    if R <= FEW:
        # The library's product reads the weights slowly for so few rows: slower than one row after the other.
        return _product_in_blocks([x_RK], weight_NK)
    return x_RK @ weight_NK.T


def _bfloat16_product(x_RK, bits_NK):
    """Multiply by bfloat16 weights, which are widened exactly."""
    K = bits_NK.shape[1]
    if K % 2 or bits_NK.strides[1] != bits_NK.itemsize or bits_NK.strides[0] % 4:

        def widen(bits, parts):
            np.left_shift(bits, 16, out=parts[0].view(np.uint32), dtype=np.uint32)

        return _product_in_blocks([x_RK], bits_NK, widen)

    # Two bfloat16 side by side are one 32-bit word, and two instructions take it apart. That leaves even and odd
    # channels in two halves, so the activations are parted alike.
    def part(words, parts):
        np.left_shift(words, 16, out=parts[0].view(np.uint32))
        np.bitwise_and(words, 0xFFFF0000, out=parts[1].view(np.uint32))

    halves = [np.ascontiguousarray(x_RK[:, half::2]) for half in (0, 1)]
    return _product_in_blocks(halves, bits_NK.view(np.uint32), part)


def _int8_product(x_RK, weight):
    """Multiply by whole numbers; the factor of each row comes last."""
    y_RN = _product_in_blocks([x_RK], weight.number_NK, lambda number, parts: np.copyto(parts[0], number))
    y_RN *= weight.factor_N
    return y_RN


def _product_in_blocks(parts_RK, weight_NK, widen=None):
    """Multiply block by block, on all cores: each is read from memory once, for all rows.

    Parameters
    ----------
    parts_RK : list of arrays
        The activations; or their channels, in parts, as ``widen`` parts those of the weights.
    weight_NK : array
    widen : callable, optional
        ``widen(block, parts)`` writes a block of narrow weights as float32.

    Returns
    -------
    y_RN : array
    """
    R, N, K = len(parts_RK[0]), len(weight_NK), sum(part.shape[1] for part in parts_RK)
    y_RN = np.zeros((R, N), dtype=parts_RK[0].dtype)

    def work(start, stop):
        blocks = [weight_NK[start:stop]]
        if widen:
            blocks = _buffer((stop - start) * K).reshape(len(parts_RK), stop - start, -1)
            widen(weight_NK[start:stop], blocks)
        for x_RK, block in zip(parts_RK, blocks):
            if R <= FEW:
                for x_K, y_N in zip(x_RK, y_RN):
                    y_N[start:stop] += block @ x_K
            else:
                y_RN[:, start:stop] += x_RK @ block.T

    threads.split(work, N, max(1, (BLOCK if R <= FEW else LARGE_BLOCK) // K))
    return y_RN


def _buffer(size):
    """Return memory for so many float32, which the thread keeps for its next block."""
    if getattr(_memory, "wide", None) is None or len(_memory.wide) < size:
        _memory.wide = np.empty(size, dtype=np.float32)
    return _memory.wide[:size]
