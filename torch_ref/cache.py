"""The twin of ``npgemma/cache.py``, which explains what both do."""

import torch


class KVCache:
    """Keys and values of all layers, filled from the left to one common level."""

    def __init__(self, config, batch, capacity, like):
        shape = (config.layers, batch, capacity, config.key_value_heads, config.head_width)
        self.k_LBSKH = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.v_LBSKH = torch.zeros(shape, dtype=like.dtype, device=like.device)
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
        """Store the keys and values of new tokens after the old ones, and return all of them."""
        start = self.cache.length
        end = start + k_BTKH.shape[1]
        self.cache.k_LBSKH[self.i, :, start:end] = k_BTKH
        self.cache.v_LBSKH[self.i, :, start:end] = v_BTKH
        k_BSKH = self.cache.k_LBSKH[self.i, :, :end]
        v_BSKH = self.cache.v_LBSKH[self.i, :, :end]
        return k_BSKH, v_BSKH
