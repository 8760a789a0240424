"""Products of activations with weights, as fast as the weights can be read.

`npgemma.ops.einsum` comes here with every formula that multiplies activations by a weight. All of them are one product
of matrices, ``x_RK @ weight_NK.T``: R rows of activations, K channels that are summed, N that come out. A checkpoint
stores every weight as N rows of K, which is how they lie in memory.

A token is R = 1, and then the limit is how fast the weights come out of memory; narrower weights come sooner, and are
widened in blocks that fit the caches, and used there. The tokens of several answers are a few rows more: then the
matrix library would take longer to rearrange the weights than to multiply them, unless it is given tiles (`_few_rows`).
While a picture is read R is large, arithmetic is the limit, and blocks are larger than the caches.

The other formulas, attention's, multiply activations by activations (`multiply_activations`).
"""

import functools
import math
import threading

import numpy as np

from npgemma.fast import threads
from npgemma.fast.int8 import Int8Weight

# What a thread takes at a time: of narrow weights so many that they fit the caches when widened, of others more, and
# with many rows of activations so many rows of weights. Smaller pieces cost: threads wait for each other in Python.
WIDENED, PLAIN, LARGE = 2**20, 2**22, 2048
# With more rows of activations than these the library's way of large products is the fastest. Measured on two cores of
# a processor with AVX-512 at K = 2048: 32 rows, 2.3 thousand million weights a second against 1.8; 64 rows, 0.9
# against 1.2.
FEW = 32
# OpenBLAS multiplies without rearranging the matrices first if that takes at most so many multiplications. Two rows are
# then as fast as one, at 8 thousand million weights a second; the plain product reaches 2.9. With 16 rows, 4 and 2.4.
TILE = 10**6
# A smaller matrix is multiplied before another thread has begun.
SMALL = 2**18
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


def multiply_activations(formula, x, other):
    """Multiply activations by activations, as attention does: the queries (``T``) in pieces, on all cores.

    Parameters
    ----------
    formula : str
        ``"BTKGH,BSKH->BKGTS"``: ``T`` is an axis of ``x`` and of the result.
    x, other : arrays

    Returns
    -------
    array
    """
    operands, result = formula.split("->")
    sizes = dict(zip(operands.replace(",", ""), x.shape + other.shape))
    found = np.empty([sizes[letter] for letter in result], dtype=np.result_type(x, other))
    before_x, before_found = ((slice(None),) * letters.index("T") for letters in (operands, result))

    def work(start, stop):
        """Multiply some of the queries."""
        tokens = slice(start, stop)
        found[(*before_found, tokens)] = np.einsum(formula, x[(*before_x, tokens)], other, optimize=True)

    T = sizes["T"]
    threads.split(work, T, max(1, T) if found.size < SMALL else threads.even(T, LARGE))
    return found


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
        narrow = weight.dtype == np.uint16
        y_RN = _bfloat16_product(x_RK, weight_NK) if narrow else _product_in_blocks([x_RK], weight_NK)
    return y_RN.reshape(*x.shape[:kept], *out_axes)


def _bfloat16_product(x_RK, bits_NK):
    """Multiply by bfloat16 weights, which are widened exactly."""
    K = bits_NK.shape[1]
    if K % 2 or bits_NK.strides[1] != bits_NK.itemsize or bits_NK.strides[0] % 4:

        def widen(bits, parts):
            """Write a block as float32."""
            np.left_shift(bits, 16, out=parts[0].view(np.uint32), dtype=np.uint32)

        return _product_in_blocks([x_RK], bits_NK, widen)

    # Two bfloat16 side by side are one 32-bit word, and two instructions take it apart. That leaves even and odd
    # channels in two halves, so the activations are parted alike.
    def part(words, parts):
        """Write the two halves of a block's words as float32."""
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
    if R == 1 and not widen:
        # Reading is all there is to do, and the library's own threads do it at the limit.
        return (weight_NK @ parts_RK[0][0])[None]
    y_RN = np.empty((R, N), dtype=parts_RK[0].dtype if widen else np.result_type(parts_RK[0], weight_NK))

    def work(start, stop):
        """Multiply all rows by some of the weights."""
        blocks = [weight_NK[start:stop]]
        if widen:
            blocks = _buffer((stop - start) * K).reshape(len(parts_RK), stop - start, -1)
            widen(weight_NK[start:stop], blocks)
        found, *more = map(_multiply_block, parts_RK, blocks)
        for part in more:
            found += part
        y_RN[:, start:stop] = found

    if R > FEW:
        most = min(LARGE, max(1, 2 * PLAIN // K)) if widen else LARGE
    else:
        most = max(1, (WIDENED if widen else PLAIN) // K)
    threads.split(work, N, N if N * K < SMALL and most >= N else threads.even(N, most))
    return y_RN


def _multiply_block(x_RK, block_NK):
    """Multiply by weights that a thread has taken, in the way that is fastest for so many rows."""
    if len(x_RK) == 1:
        return (block_NK @ x_RK[0])[None]
    # The library multiplies faster with the weights on the left; what comes out is turned while it is in the cache.
    return _few_rows(x_RK, block_NK) if len(x_RK) <= FEW else (block_NK @ x_RK.T).T


def _few_rows(x_RK, block_NK):
    """Multiply by tiles of the weights, of at most `TILE` multiplications each."""
    (R, K), N = x_RK.shape, len(block_NK)
    y_RN = np.zeros((R, N), dtype=np.result_type(x_RK, block_NK))
    # At least four rows of weights in a tile; if they are too long for that, in parts.
    width = min(K, TILE // (4 * R))
    rows = min(64, TILE // (R * width) // 4 * 4)
    whole = N // rows * rows
    for start in range(0, K, width):
        x_Rk, block_Nk = x_RK[:, start : start + width], block_NK[:, start : start + width]
        tile_Ank = block_Nk[:whole].reshape(whole // rows, rows, block_Nk.shape[1])
        y_ARn = x_Rk @ tile_Ank.swapaxes(1, 2)
        y_RN[:, :whole] += y_ARn.swapaxes(0, 1).reshape(R, whole)
        y_RN[:, whole:] += x_Rk @ block_Nk[whole:].T
    return y_RN


def _buffer(size):
    """Return memory for so many float32, which the thread keeps for its next block."""
    if getattr(_memory, "wide", None) is None or len(_memory.wide) < size:
        _memory.wide = np.empty(size, dtype=np.float32)
    return _memory.wide[:size]
