"""cache.py against its twin: what is stored is what comes back, and nothing else."""

import numpy as np
from support import CONFIGS, random, tensor

import torch_ref.cache as twin
from npgemma.cache import KVCache

TEXT = CONFIGS["two key/value heads"].text
B, CAPACITY = 2, 9


def keys(tokens, seed):
    return random((B, tokens, TEXT.key_value_heads, TEXT.head_width), seed, "float32")


def test_layers_share_one_fill_level():
    cache = KVCache(TEXT, B, CAPACITY, keys(1, 0))
    twin_cache = twin.KVCache(TEXT, B, CAPACITY, tensor(keys(1, 0)))
    stored = []
    for call, tokens in enumerate((5, 1, 3)):
        for i in range(TEXT.layers):
            k, v = keys(tokens, 100 * call + i), keys(tokens, 200 * call + i)
            stored.append((i, k, v))
            found = cache.layer(i).extend(k, v)
            twin_found = twin_cache.layer(i).extend(tensor(k), tensor(v))
            for which, (ours, theirs) in enumerate(zip(found, twin_found)):
                expected = np.concatenate([entry[1 + which] for entry in stored if entry[0] == i], axis=1)
                assert np.array_equal(ours, expected)
                assert np.array_equal(theirs.numpy(), expected)
        cache.advance(tokens)
        twin_cache.advance(tokens)
    assert cache.length == twin_cache.length == CAPACITY


def test_what_comes_back_is_a_view():
    cache = KVCache(TEXT, B, CAPACITY, keys(1, 0))
    k, v = cache.layer(1).extend(keys(4, 0), keys(4, 1))
    assert np.shares_memory(k, cache.k_LBSKH)
    assert np.shares_memory(v, cache.v_LBSKH)
