"""attention.py against its twin and against torch's scaled_dot_product_attention."""

import numpy as np
import pytest
import torch.nn.functional as F
from support import assert_close, random, tensor

import torch_ref.attention as twin
from npgemma.attention import attend
from npgemma.porting.bounds import OPERATION

B, T, S, H = 2, 5, 7, 4


@pytest.mark.parametrize("heads", [(6, 1), (6, 2), (6, 6)])
@pytest.mark.parametrize("masked", [True, False])
def test_attend(dtype, heads, masked):
    N, K = heads
    q, k, v = random((B, T, N, H), 0, dtype), random((B, S, K, H), 1, dtype), random((B, S, K, H), 2, dtype)
    mask = np.random.default_rng(3).random((B, T, S)) < 0.6
    mask[:, :, 0] = True
    mask = mask if masked else None
    expected = F.scaled_dot_product_attention(
        *(tensor(x).transpose(1, 2) for x in (q, k, v)),
        attn_mask=tensor(mask)[:, None] if masked else None,
        enable_gqa=True,
    ).transpose(1, 2)
    assert_close(expected, attend(q, k, v, mask), OPERATION[dtype])
    tensors = [tensor(x) for x in (q, k, v)]
    assert_close(expected, twin.attend(*tensors, tensor(mask) if masked else None), OPERATION[dtype])


def test_what_is_masked_is_never_read():
    q, k, v = random((1, 1, 2, H), 0), random((1, 3, 2, H), 1), random((1, 3, 2, H), 2)
    mask = np.array([[[True, False, True]]])
    before = attend(q, k, v, mask)
    k[:, 1], v[:, 1] = 1e6, -1e6
    assert np.array_equal(attend(q, k, v, mask), before)
