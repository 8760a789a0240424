"""blocks.py: attention in blocks is the whole formula, for both families; who records sees whole arrays."""

import pytest
import torch
from support import GEMMA_2, assert_close, random, tensor

import npgemma
from npgemma.fast.blocks import whole_arrays
from npgemma.porting.bounds import OPERATION
from torch_ref import attention, blocks, gemma2
from torch_ref.attention import attend

H = 6
# Rows, queries, keys; query heads, key/value heads.
SIZES = [((2, 35, 51), (6, 2)), ((1, 67, 67), (5, 5)), ((3, 1, 41), (4, 1))]
FORMULAS = {"Gemma": attend, "Gemma 2": lambda *arrays: gemma2.attend(*arrays, GEMMA_2.text)}


@pytest.fixture(params=[1, 17, 300], autouse=True)
def small_blocks(request, monkeypatch):
    """Blocks of one query, of some queries of one head, of several heads."""
    monkeypatch.setattr(blocks, "QUERIES", request.param)


def arrays(sizes, heads, dtype):
    (B, T, S), (N, K) = sizes, heads
    shapes = (B, T, N, H), (B, S, K, H), (B, S, K, H)
    mask = random((B, T, S), 3) > -0.3
    mask[:, :, 0] = True
    return *(tensor(random(shape, i, dtype)) for i, shape in enumerate(shapes)), tensor(mask)


@pytest.mark.parametrize("family", FORMULAS)
@pytest.mark.parametrize(("sizes", "heads"), SIZES)
def test_blocks_are_the_whole_formula(family, sizes, heads, dtype):
    qkv_mask = arrays(sizes, heads, dtype)
    with whole_arrays():
        whole = FORMULAS[family](*qkv_mask)
    assert_close(whole, FORMULAS[family](*qkv_mask), OPERATION[dtype])


def test_without_a_mask_and_with_one_for_all_rows(dtype):
    q, k, v, mask = arrays(*SIZES[0], dtype)
    for shared in (None, mask[:1]):
        with whole_arrays():
            whole = attend(q, k, v, shared)
        assert_close(whole, attend(q, k, v, shared), OPERATION[dtype])


def test_gradients_pass_through_blocks():
    *qkv, mask = arrays(*SIZES[0], "float64")

    def gradients():
        """Return the gradients of one number made of all results."""
        leaves = [x.clone().requires_grad_() for x in qkv]
        attend(*leaves, mask).square().sum().backward()
        return [x.grad for x in leaves]

    with whole_arrays():
        whole = gradients()
    for expected, found in zip(whole, gradients()):
        assert_close(expected, found, OPERATION["float64"])


def test_formula_runs_block_by_block(monkeypatch):
    q, k, v, mask = arrays(*SIZES[0], "float64")
    seen = []
    softmax = torch.softmax
    monkeypatch.setattr("torch_ref.attention.softmax", lambda x: (seen.append(x.shape[:-1].numel()), softmax(x, -1))[1])
    attend(q, k, v, mask)
    assert sum(seen) == 2 * 35 * 6
    # The three query heads that share keys stay together.
    assert max(seen) <= max(blocks.QUERIES, 3)
    # And no more blocks than need be.
    assert len(seen) == {1: 2 * 2 * 35, 17: 2 * 2 * 7, 300: 2}[blocks.QUERIES]


def test_who_records_sees_whole_arrays():
    with npgemma.record() as trace:
        attention.attend(*arrays(*SIZES[0], "float32"))
    assert trace["attend.0/weight_BKGTS"].shape == (2, 2, 3, 35, 51)
