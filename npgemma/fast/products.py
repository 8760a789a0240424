"""Products of activations with weights, as fast as the weights can be read.

`npgemma.ops.einsum` comes here with every formula. Those that multiply activations by a weight are one product of
matrices, ``x_RK @ weight_NK.T``: R rows of activations, K channels that are summed, N that come out. A checkpoint
stores every weight as N rows of K, which is how they lie in memory.

A token is R = 1, and then the limit is how fast the weights come out of memory; narrower weights come sooner, and are
widened in blocks that fit the caches, and used there. The tokens of several answers are a few rows more: then the
matrix library would take longer to rearrange the weights than to multiply them, unless it is given tiles (`_few_rows`).
While an image is read R is large, arithmetic is the limit, and blocks are larger than the caches.

Attention's formulas multiply activations by activations (`multiply_activations`); any other is `np.einsum`'s.
"""

import functools
import math
import re
import threading

import numpy as np

from npgemma.fast import blas, threads

# What a thread takes at a time: of narrow weights so many that they fit the caches when widened, of others more, and
# with many rows of activations so many rows of weights. Smaller pieces cost: threads wait for each other in Python.
# A step of one token of the 3B model, on two cores with 1 MB of cache each: int8 0.53 s with pieces of 2^19, 0.37 with
# 2^20, 0.48 with 2^21; bfloat16 0.69, 0.54 and 0.76.
WIDENED, PLAIN, LARGE = 2**20, 2**22, 2048
# With more rows of activations than these the library's way of large products is the fastest. Measured on two cores of
# a processor with AVX-512 at K = 2048: 32 rows, 2.3 billion weights a second against 1.8; 64 rows, 0.9
# against 1.2.
FEW = 32
# With as many rows as these, what comes out no longer fits the cache where it would be turned. Measured at K = 1152:
# 256 rows, 88 billion operations a second on one core turned and 92 not; 4096 rows, 86 and 104.
MANY = 512
# A product with so many times more channels out than in makes an MLP's hidden channels. They stay transposed in
# memory, one channel after the other: the library writes them so at its full speed, what follows treats each number
# by itself, and the product that ends the MLP reads them so as fast. Gemma 2B's MLP, measured in turn: 262 tokens,
# 330 ms turned back and 313 not; 1030 tokens, 1305 and 1286.
HIDDEN = 2
# OpenBLAS multiplies without rearranging the matrices first if that takes at most so many multiplications. Two rows are
# then as fast as one, at 8 billion weights a second; the plain product reaches 2.9. With 16 rows, 4 and 2.4.
TILE = 10**6
# A smaller matrix is multiplied before another thread has begun.
SMALL = 2**18
_memory = threading.local()
# Two operands, each with every axis named, and a result.
_TWO_OPERANDS = re.compile(r"[A-Za-z]+,[A-Za-z]+->[A-Za-z]+")


def fast_product(formula, *operands):
    """Return what ``np.einsum`` returns, in the way that is fastest here; the second operand may be a narrow weight.

    None for a formula that is neither a product of activations with a weight nor one of attention's.
    """
    found = layout(formula)
    if found:
        return multiply(*operands, *found)
    return multiply_activations(formula, *operands) if as_matrices(formula) else None


@functools.lru_cache(maxsize=1024)
def check_axes(formula, *shapes):
    """Refuse operands whose axes disagree; a formula and shapes that were right once are not looked at again.

    ValueError if operands or axes are more or fewer than the formula names, or one letter stands for two sizes, of
    which one may be 1: nothing is broadcast. A formula with ``...`` is left to `numpy.einsum` and `torch.einsum`.

    >>> check_axes("BTNH,NHD->BTD", (2, 5, 4, 6), (6, 4, 7))
    Traceback (most recent call last):
    ValueError: einsum BTNH,NHD->BTD: axis N is 4 in the first operand and 6 in the second
    """
    if "..." in formula:
        return
    operands = formula.partition("->")[0].replace(" ", "").split(",")
    if len(operands) != len(shapes):
        raise ValueError(f"einsum {formula}: expected {len(operands)} operands, found {len(shapes)}")
    seen = {}
    for place, axes, shape in zip(("first", "second", "third", "fourth"), operands, shapes):
        if len(axes) != len(shape):
            raise ValueError(f"einsum {formula}: the {place} operand should have {len(axes)} axes, found {len(shape)}")
        for letter, size in zip(axes, shape):
            before, other = seen.setdefault(letter, (size, place))
            if before != size:
                raise ValueError(
                    f"einsum {formula}: axis {letter} is {before} in the {other} operand and {size} in the {place}"
                )


@functools.cache
def layout(formula: str) -> tuple[int, tuple[int, ...]] | None:
    """Say how a formula is a product of matrices: how many axes of the activations stay, and the order of the weight's.

    The leading axes stay; the order puts those that come out before those that are summed. None if the formula is no
    such product: an axis runs through both operands and the result, for example.

    >>> layout("BTNH,NHD->BTD"), layout("BTKGH,BSKH->BKGTS")
    ((2, (2, 0, 1)), None)
    """
    if not _TWO_OPERANDS.fullmatch(formula):
        return None
    activations, weight, result = _parts(formula)
    summed = "".join(letter for letter in weight if letter in activations)
    out = "".join(letter for letter in weight if letter not in activations)
    kept = activations.removesuffix(summed)
    if len(set(activations)) < len(activations) or len(set(weight)) < len(weight):
        return None
    if not summed or kept + summed != activations or kept + out != result:
        return None
    return len(kept), tuple(weight.index(letter) for letter in out + summed)


def _parts(formula):
    operands, result = formula.split("->")
    return *operands.split(","), result


@functools.cache
def as_matrices(formula: str) -> tuple[str, str, str, str] | None:
    """Say how a formula of attention (None for any other) is a product of matrices, one for each place of a batch.

    The axes of the batch, which both operands and the result have; of the rows, which the second operand has not, ``T``
    among them; the axes that are summed; and those of the columns, which the first has not.

    >>> as_matrices("BTKGH,BSKH->BKGTS"), as_matrices("BKGTS,BSKH->BTKGH")
    (('BK', 'GT', 'H', 'S'), ('BK', 'TG', 'S', 'H'))
    """
    if not _TWO_OPERANDS.fullmatch(formula):
        return None
    x, other, result = _parts(formula)
    batch = "".join(letter for letter in result if letter in x and letter in other)
    rows = "".join(letter for letter in result if letter not in other)
    columns = "".join(letter for letter in result if letter not in x)
    summed = "".join(letter for letter in x if letter not in result)
    sorts = (x, batch + rows + summed), (other, batch + summed + columns), (result, batch + rows + columns)
    fits = all(len(axes) == len(sort) and set(axes) == set(sort) for axes, sort in sorts)
    return (batch, rows, summed, columns) if fits and "T" in rows else None


def multiply_activations(formula, x, other):
    """Multiply activations by activations, as attention does: the queries (``T``) in pieces, on all cores."""
    axes, other_axes, result = _parts(formula)
    sizes = dict(zip(axes + other_axes, x.shape + other.shape))
    T = sizes["T"]
    if threads.splitting() or math.prod(sizes[letter] for letter in result) < SMALL:
        with blas.on_one_thread():
            return _multiply_queries(formula, x, other)
    found = np.empty([sizes[letter] for letter in result], dtype=np.result_type(x, other))
    before_x, before_found = ((slice(None),) * letters.index("T") for letters in (axes, result))

    def work(start, stop):
        tokens = slice(start, stop)
        found[(*before_found, tokens)] = _multiply_queries(formula, x[(*before_x, tokens)], other)

    threads.split(work, T, threads.even(T, LARGE))
    return found


def _multiply_queries(formula, x, other):
    """Multiply by matrices: keys and values are read where they lie in the cache, without a copy."""
    axes, other_axes, result = _parts(formula)
    batch, rows, summed, columns = as_matrices(formula)
    sizes = dict(zip(axes + other_axes, x.shape + other.shape))
    summed_size, columns_size = (math.prod(sizes[letter] for letter in group) for group in (summed, columns))
    # Scores are many: their rows stay in the order that they have in memory, whether they go in or come out.
    rows = "".join(sorted(rows, key=(axes if summed_size > columns_size else result).index))

    def matrices(array, axes, down, along):
        """Return an array as a batch of matrices: with some axes as one, and others as the second."""
        sorted_ = array.transpose([axes.index(letter) for letter in batch + down + along])
        shape = [math.prod(sizes[letter] for letter in group) for group in (down, along)]
        return sorted_.reshape(*sorted_.shape[: len(batch)], *shape)

    turned = matrices(other, other_axes, columns, summed) @ matrices(x, axes, rows, summed).swapaxes(-1, -2)
    turned = turned.reshape([sizes[letter] for letter in batch + columns + rows])
    return turned.transpose([(batch + columns + rows).index(letter) for letter in result])


def multiply(x, weight, kept, order):
    """Multiply activations by a weight, which does it itself if it is narrow; the last two arguments are `layout`'s."""
    out_axes = [weight.shape[axis] for axis in order[: weight.ndim - (x.ndim - kept)]]
    x_RK = x.reshape(math.prod(x.shape[:kept]), -1)
    if hasattr(weight, "multiply"):
        y_RN = weight.multiply(x_RK, order)
    else:
        y_RN = product_in_blocks([x_RK], rows_of(weight, order, x_RK.shape[1]))
    return y_RN.reshape(*x.shape[:kept], *out_axes)


def rows_of(weight, order, K):
    """Return a weight as rows of what comes out, each of K summed entries: of a checkpoint a view, not a copy."""
    return weight.transpose(order).reshape(-1, K)


def product_in_blocks(parts_RK, weight_NK, widen=None):
    """Multiply block by block, on all cores: each is read from memory once, for all rows.

    ``widen(block, parts)`` writes a block of narrow weights as float32, in parts if the activations' channels are.
    """
    R, N, K = len(parts_RK[0]), len(weight_NK), sum(part.shape[1] for part in parts_RK)
    if R == 1 and not widen:
        # Reading is all there is to do, and the library's own threads do it at the limit.
        return (weight_NK @ parts_RK[0][0])[None]
    dtype = parts_RK[0].dtype if widen else np.result_type(parts_RK[0], weight_NK)
    y_RN = np.empty((N, R), dtype=dtype).T if R > FEW and N > HIDDEN * K else np.empty((R, N), dtype=dtype)

    def work(start, stop):
        blocks = [weight_NK[start:stop]]
        if widen:
            blocks = _buffer((stop - start) * K).reshape(len(parts_RK), stop - start, -1)
            widen(weight_NK[start:stop], blocks)
        y_Rn = y_RN[:, start:stop]
        _multiply_block(parts_RK[0], blocks[0], y_Rn)
        for part_RK, block in zip(parts_RK[1:], blocks[1:]):
            more_Rn = np.empty_like(y_Rn)
            _multiply_block(part_RK, block, more_Rn)
            y_Rn += more_Rn

    if R > FEW:
        most = min(LARGE, max(1, 2 * PLAIN // K)) if widen else LARGE
    else:
        most = max(1, (WIDENED if widen else PLAIN) // K)
    threads.split(work, N, N if N * K < SMALL and most >= N else threads.even(N, most))
    return y_RN


def _multiply_block(x_RK, block_NK, y_RN):
    """Multiply by weights that a thread has taken, in the way that is fastest for so many rows; write to ``y_RN``."""
    if len(x_RK) == 1:
        y_RN[0] = block_NK @ x_RK[0]
    elif len(x_RK) <= FEW:
        y_RN[:] = _few_rows(x_RK, block_NK)
    elif len(x_RK) < MANY and y_RN.strides[1] < y_RN.strides[0]:
        # The library multiplies faster with the weights on the left; what comes out is turned while it is in the cache.
        y_RN[:] = (block_NK @ x_RK.T).T
    else:
        np.matmul(x_RK, block_NK.T, out=y_RN)


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
