"""bfloat16.py: bits of bfloat16 and their values."""

import numpy as np
import pytest
import torch
from support import random

from npgemma import ops
from npgemma.fast import bfloat16
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


@pytest.mark.parametrize(("shape", "order", "halves"), [((6, 8), (0, 1), 2), ((6, 7), (0, 1), 1), ((6, 8), (1, 0), 1)])
def test_even_and_odd_channels_are_parted_where_they_lie_side_by_side(shape, order, halves, monkeypatch):
    seen, product = [], bfloat16.product_in_blocks

    def watched(parts_RK, *rest):
        seen.append(len(parts_RK))
        return product(parts_RK, *rest)

    monkeypatch.setattr(bfloat16, "product_in_blocks", watched)
    weight = BFloat16Weight(narrow(random(shape, 0, "float32")))
    x = random((1, 3, shape[order[1]]), 1, "float32")
    found = ops.einsum("BTD,VD->BTV" if order == (0, 1) else "BTD,DV->BTV", x, weight)
    assert seen == [halves]
    assert np.allclose(found, x @ np.asarray(weight).transpose(order).T, atol=1e-5)
