"""The key/value cache: the keys and values of past tokens, kept so that none is computed twice.

Nothing that is computed later changes what was computed before: image and prompt are computed in one call and read from
each other only, and each token of the answer reads from itself and what stands before it. So the keys and values of a
token stay right for the rest of the answer. (A query serves only its own token's output, which is computed once.) A
step then runs *one* new token through the blocks and reads the rest from here. Without a cache the tenth step would run
the blocks over 256 image tokens, a prompt of 5 and 10 tokens of the answer: 271 tokens instead of one.

The price is memory: 2 L K H numbers a token, for the 3B model 2 x 18 x 1 x 256 = 9216, in float32 37 kB, and 302 MB for
all 8192 tokens of a full context. With a key/value head for each of its eight query heads that would be 2.4 GB.

All that one step hands on to the next is the cache, the token that was chosen, and which tokens are real. The cache's
memory is taken once, at full length; a step writes its own keys and values into it, and changes nothing else there.

*Next:* ``generate.py``.
"""

import numpy as np


class KVCache:
    """Keys and values of all layers, filled from the left to one common level.

    Parameters
    ----------
    config : TextConfig
    batch : int
        B, images with prompts.
    capacity : int
        The most tokens it can hold: image, prompt and answer.
    like : array
        An array of the dtype (and, in the twin, on the device) that the cache is to have.

    Examples
    --------
    One layer, one head of one channel. *Prefill* (image and prompt, in one call) stores the keys 1, 2, 3; two steps add
    one key each:

    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> sizes = SimpleNamespace(layers=1, key_value_heads=1, head_width=1)
    >>> cache = KVCache(sizes, batch=1, capacity=5, like=np.zeros(1))
    >>> for keys in ([1.0, 2.0, 3.0], [4.0], [5.0]):
    ...     new_BTKH = np.array(keys).reshape(1, -1, 1, 1)
    ...     k_BSKH, v_BSKH = cache.layer(0).extend(new_BTKH, 10 * new_BTKH)
    ...     cache.advance(len(keys))
    ...     print(cache.length, k_BSKH.ravel(), cache.k_LBSKH.ravel())
    3 [1. 2. 3.] [1. 2. 3. 0. 0.]
    4 [1. 2. 3. 4.] [1. 2. 3. 4. 0.]
    5 [1. 2. 3. 4. 5.] [1. 2. 3. 4. 5.]
    """

    def __init__(self, config, batch, capacity, like):
        shape = (config.layers, batch, capacity, config.key_value_heads, config.head_width)
        self.k_LBSKH = np.zeros(shape, dtype=like.dtype)
        self.v_LBSKH = np.zeros(shape, dtype=like.dtype)
        self.length = 0

    def layer(self, i):
        """Return layer i's part, which its attention extends."""
        return LayerCache(self, i)

    def advance(self, new):
        """Raise the fill level by ``new`` tokens, once all layers have stored theirs."""
        self.length += new


class LayerCache:
    """One layer's view of a `KVCache`."""

    def __init__(self, cache, i):
        self.cache, self.i = cache, i

    def extend(self, k_BTKH, v_BTKH):
        """Store the keys and values of new tokens after the old ones, and return all of them.

        Parameters
        ----------
        k_BTKH, v_BTKH : arrays
            Of this call's tokens.

        Returns
        -------
        k_BSKH, v_BSKH : arrays
            Views of the cache: past tokens and these.
        """
        start = self.cache.length
        end = start + k_BTKH.shape[1]
        self.cache.k_LBSKH[self.i, :, start:end] = k_BTKH
        self.cache.v_LBSKH[self.i, :, start:end] = v_BTKH
        k_BSKH = self.cache.k_LBSKH[self.i, :, :end]
        v_BSKH = self.cache.v_LBSKH[self.i, :, :end]
        return k_BSKH, v_BSKH
