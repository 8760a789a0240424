"""bfloat16.py: bits of bfloat16 and their values."""

import numpy as np
import torch

from npgemma.fast.bfloat16 import BFloat16Weight, narrow, widen


def test_widen_is_exact_on_every_bfloat16():
    bits = np.arange(2**16, dtype=np.uint16)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    assert np.array_equal(widen(bits).view(np.uint32), expected.view(np.uint32))


def test_a_weight_is_looked_up_and_shown_as_its_values():
    values = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    weight = BFloat16Weight(narrow(values))
    rounded = widen(narrow(values))
    assert (weight.shape, weight.ndim, weight.size) == ((5, 6), 2, 30)
    np.testing.assert_array_equal(np.asarray(weight), rounded)
    np.testing.assert_array_equal(weight[np.array([[4, 0], [2, 2]])], rounded[[[4, 0], [2, 2]]])
