"""Many tokens in blocks: attention for a block of queries at a time, and the MLP for a block of tokens.

At 896 pixels an image is 4096 tokens, and the vision tower's 16 heads have 268 million scores in every layer: 1.1 GB in
float32. Taken whole, each operation of the formula (maximum, exponential, sum, quotient) reads and writes all of them
in memory. A query's result depends on no other query, so the formula can be run for a few queries at a time, by a core
whose caches hold their scores.
"""

import contextlib
import functools
from contextvars import ContextVar

import numpy as np

from npgemma.fast import threads

# Scores of a block: 4 MB in float32, which fit the last cache beside what the formula makes of them. Of fewer queries,
# the matrix library would rearrange the keys for too few products.
SCORES = 2**20
# With fewer scores than these, attention is done before another thread has begun.
SMALL = 2**18
# Tokens of a block of the MLP: enough for the matrix library to reach its limit.
TOKENS = 1536
_whole = ContextVar("whole", default=False)


@contextlib.contextmanager
def whole_arrays():
    """Take all queries and tokens at once inside a ``with`` statement, for those who want to see whole arrays."""
    before = _whole.set(True)
    try:
        yield
    finally:
        _whole.reset(before)


def taken_whole():
    """Return whether `whole_arrays` is in force."""
    return _whole.get()


def in_blocks_of_queries(attend):
    """Let a formula of attention take many queries in blocks, on all cores; results differ by rounding only.

    Every query's result must depend on that query, its mask and all keys and values of its head, as with
    `npgemma.attention.attend`.
    """

    @functools.wraps(attend)
    def wrapped(q_BTNH, k_BSKH, v_BSKH, mask_BTS=None, *others, **named):
        B, T, N, _ = q_BTNH.shape
        S, K = k_BSKH.shape[1:3]
        if taken_whole() or B * T * N * S < SMALL:
            return attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, *others, **named)
        mixed_BTNH = np.empty(q_BTNH.shape, dtype=np.result_type(q_BTNH, k_BSKH, v_BSKH))
        # No more than a core's share: with one core, all of it.
        most = min(SCORES, -(-N * T * S // threads.count()))
        places = cut(B, K, N // K, T, S, most)
        whole_mask = None if mask_BTS is None else np.broadcast_to(mask_BTS, (B, T, S))

        def work(start, stop):
            for rows, tokens, heads, shared in places[start:stop]:
                mask = None if whole_mask is None else _keys_first(whole_mask[rows, tokens])
                q, k, v = q_BTNH[rows, tokens, heads], k_BSKH[rows, :, shared], v_BSKH[rows, :, shared]
                mixed_BTNH[rows, tokens, heads] = attend(q, k, v, mask, *others, **named)

        threads.split(work, len(places), 1)
        return mixed_BTNH

    return wrapped


def _keys_first(mask_BTS):
    """Return a block's mask in the order that its scores have in memory, or NumPy would turn the scores."""
    # All queries of a prefix read from the same keys, and one row of the mask is enough.
    one_B1S = mask_BTS[:, :1]
    alike = (mask_BTS == one_B1S).all()
    return np.broadcast_to(one_B1S, mask_BTS.shape) if alike else np.asfortranarray(mask_BTS)


def in_blocks_of_tokens(function):
    """Let a function that treats each token by itself take many in blocks, one after the other, each on all cores.

    The arrays that the function makes on the way then need less memory: for the 16384 hidden channels of 4102 tokens,
    of which `npgemma.gemma.geglu` has three arrays at once, 0.8 GB. It must return an array of the shape and dtype of
    ``x_BTD``; results differ by rounding only.
    """

    @functools.wraps(function)
    def wrapped(x_BTD, *others, **named):
        B, T, D = x_BTD.shape
        if taken_whole() or B * T <= TOKENS:
            return function(x_BTD, *others, **named)
        rows = x_BTD.reshape(1, B * T, D)
        pieces = -(-B * T // TOKENS)
        out = [function(part, *others, **named) for part in np.array_split(rows, pieces, axis=1)]
        return np.concatenate(out, axis=1).reshape(B, T, D)

    return wrapped


def cut(B, K, G, T, S, most):
    """Cut an array of scores into blocks of about the same size: at most ``most`` scores, but at least one query.

    The G query heads that share a key/value head stay together: their queries are rows of one product. Each block is
    slices of rows, queries, query heads, and the key/value heads that these share.

    Scores of 4 query heads, of which two each share keys and values, for 300 queries and keys:

    >>> for rows, tokens, heads, shared in cut(1, 2, 2, 300, 300, most=100_000):
    ...     print(tokens, heads, shared)
    slice(0, 150, None) slice(0, 2, None) slice(0, 1, None)
    slice(150, 300, None) slice(0, 2, None) slice(0, 1, None)
    slice(0, 150, None) slice(2, 4, None) slice(1, 2, None)
    slice(150, 300, None) slice(2, 4, None) slice(1, 2, None)
    """

    def even(total, each):
        """Return a size of pieces of about the same size: as many as fit, when each takes so many scores."""
        pieces = -(-total // max(1, most // each))
        return -(-total // pieces)

    shared = even(K, G * T * S)
    tokens = even(T, shared * G * S)
    return [
        (slice(b, b + 1), slice(t, t + tokens), slice(k * G, (k + shared) * G), slice(k, k + shared))
        for b in range(B)
        for k in range(0, K, shared)
        for t in range(0, T, tokens)
    ]
