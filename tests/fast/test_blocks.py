"""fast/blocks.py: attention in blocks is the whole formula, for both families; who records sees whole arrays."""

import numpy as np
import pytest
from support import GEMMA_2, assert_close, random

import npgemma
from npgemma import attention, gemma, gemma2, ops
from npgemma.attention import attend
from npgemma.fast import blocks
from npgemma.params import MLPParams
from npgemma.porting.bounds import OPERATION

H = 6
# Rows, queries, keys; query heads, key/value heads.
SIZES = [((2, 35, 51), (6, 2)), ((1, 67, 67), (5, 5)), ((3, 1, 41), (4, 1)), ((1, 7, 9), (6, 3))]
FORMULAS = {
    "Gemma": lambda q, k, v, mask: attend(q, k, v, mask),
    "Gemma 2": lambda q, k, v, mask: gemma2.attend(q, k, v, mask, GEMMA_2.text),
}


@pytest.fixture(params=[1, 100, 1000, 10**6])
def small_blocks(request, monkeypatch):
    """Blocks of one query, of some queries of one head, of several heads, and one for each core."""
    monkeypatch.setattr(blocks, "SCORES", request.param)
    monkeypatch.setattr(blocks, "SMALL", 0)


def arrays(sizes, heads, dtype):
    (B, T, S), (N, K) = sizes, heads
    q, k, v = random((B, T, N, H), 0, dtype), random((B, S, K, H), 1, dtype), random((B, S, K, H), 2, dtype)
    mask = np.random.default_rng(3).random((B, T, S)) < 0.6
    mask[:, :, 0] = True
    return q, k, v, mask


@pytest.mark.parametrize("family", FORMULAS)
@pytest.mark.parametrize(("sizes", "heads"), SIZES)
def test_blocks_are_the_whole_formula(family, sizes, heads, dtype, cores, small_blocks):
    *qkv, mask = arrays(sizes, heads, dtype)
    with blocks.whole_arrays():
        exact = FORMULAS[family](*(x.astype("f8") for x in qkv), mask).astype(dtype)
        whole = FORMULAS[family](*qkv, mask)
    found = FORMULAS[family](*qkv, mask)
    assert_close(exact, found, OPERATION[dtype])
    assert_close(whole, found, OPERATION[dtype])
    assert found.flags.c_contiguous


@pytest.mark.parametrize(("sizes", "heads"), SIZES)
def test_without_a_mask(sizes, heads, dtype, cores, small_blocks):
    *qkv, _ = arrays(sizes, heads, dtype)
    with blocks.whole_arrays():
        exact = attend(*(x.astype("f8") for x in qkv)).astype(dtype)
    assert_close(exact, attend(*qkv), OPERATION[dtype])


def test_keys_and_values_may_lie_in_a_longer_cache(dtype, small_blocks):
    q, k, v, mask = arrays((2, 35, 51), (6, 2), dtype)
    longer = np.full((2, 80, 2, H), np.nan, dtype)
    longer_k, longer_v = longer.copy(), longer.copy()
    longer_k[:, :51], longer_v[:, :51] = k, v
    assert_close(attend(q, k, v, mask), attend(q, longer_k[:, :51], longer_v[:, :51], mask), OPERATION[dtype])


@pytest.mark.parametrize("most", [1, 100, 1000, 10**6])
@pytest.mark.parametrize(("sizes", "heads"), [*SIZES, ((2, 262, 262), (8, 1)), ((1, 410, 410), (8, 4))])
def test_blocks_hold_every_score_once_and_are_small(sizes, heads, most):
    (B, T, S), (N, K) = sizes, heads
    G = N // K
    seen = np.zeros((B, T, N), dtype=int)
    for rows, tokens, queries, shared in blocks.cut(B, K, G, T, S, most):
        block = seen[rows, tokens, queries]
        block += 1
        assert block.size * S <= max(most, G * S)
        assert {n // G for n in range(N)[queries]} == set(range(K)[shared])
    assert (seen == 1).all()


@pytest.mark.parametrize(("scores", "cores", "most"), [(10**9, 1, 6 * 35 * 51), (10**9, 4, 2678), (1000, 4, 1000)])
def test_a_block_is_a_cores_share_or_less(scores, cores, most, monkeypatch):
    """Of all scores of a row, rounded up."""
    seen, cut = [], blocks.cut
    monkeypatch.setattr(blocks, "SCORES", scores)
    monkeypatch.setattr(blocks, "SMALL", 2 * 6 * 35 * 51)  # as many as there are
    monkeypatch.setattr(blocks.threads, "count", lambda: cores)
    monkeypatch.setattr(blocks.threads, "split", lambda work, total, step: work(0, total))
    monkeypatch.setattr(blocks, "cut", lambda *sizes: cut(*sizes[:-1], seen.append(sizes[-1]) or sizes[-1]))
    *qkv, mask = arrays((2, 35, 51), (6, 2), "float32")
    attend(*qkv, mask)
    monkeypatch.setattr(blocks, "SMALL", blocks.SMALL + 1)
    attend(*qkv, mask)
    assert seen == [most]


def test_arguments_may_be_named(small_blocks, monkeypatch):
    q, k, v, mask = arrays((2, 35, 51), (6, 2), "float64")
    expected = gemma2.attend(q, k, v, mask, GEMMA_2.text)
    named = {"q_BTNH": q, "k_BSKH": k, "v_BSKH": v, "mask_BTS": mask, "config": GEMMA_2.text}
    assert np.array_equal(gemma2.attend(**named), expected)
    p = MLPParams(random((6, 10), 1), random((6, 10), 2), random((10, 6), 3))
    monkeypatch.setattr(blocks, "TOKENS", 4)
    x = random((1, 11, 6), 0)
    assert np.array_equal(gemma.geglu(x_BTD=x, p=p), gemma.geglu(x, p))


def test_who_records_sees_whole_arrays_and_the_same_result(small_blocks):
    q, k, v, mask = arrays((2, 35, 51), (6, 2), "float32")
    before = attend(q, k, v, mask)
    with npgemma.record() as trace:
        recorded = attention.attend(q, k, v, mask)
    assert trace["attend.0/weight_BKGTS"].shape == (2, 2, 3, 35, 51)
    assert list(trace) == [name for name in trace if name.startswith("attend.0/")]
    assert_close(recorded, before, OPERATION["float32"])
    assert np.array_equal(attend(q, k, v, mask), before), "after recording, blocks are taken again"


def test_the_formula_in_the_file_is_what_runs_in_blocks(small_blocks, monkeypatch):
    """Whoever changes attention.py changes attention, at every size."""
    q, k, v, mask = arrays((2, 35, 51), (6, 2), "float64")
    monkeypatch.setattr("npgemma.attention.softmax", lambda score: np.full_like(score, 1 / score.shape[-1]))
    mean = v.mean(axis=1)[:, None].repeat(3, axis=2).repeat(35, axis=1)
    assert_close(mean, attend(q, k, v, mask), OPERATION["float64"])


@pytest.mark.parametrize("shape", [(1, 11, 6), (3, 5, 6), (2, 1, 6)])
def test_an_mlp_in_blocks_of_tokens_is_the_whole_mlp(shape, dtype, monkeypatch):
    x = random(shape, 0, dtype)
    p = MLPParams(random((6, 10), 1, dtype), random((6, 10), 2, dtype), random((10, 6), 3, dtype))
    whole, seen = gemma.geglu(x, p), []
    monkeypatch.setattr(blocks, "TOKENS", 4)
    monkeypatch.setattr(gemma, "gelu", lambda hidden: (seen.append(hidden.shape[:2]), ops.gelu(hidden))[1])
    assert_close(whole, gemma.geglu(x, p), OPERATION[dtype])
    assert max(B * T for B, T in seen) <= 4
    assert sum(B * T for B, T in seen) == x.shape[0] * x.shape[1]
    with npgemma.record(only="*hidden_BTF") as trace:
        gemma.geglu(x, p)
    assert [hidden.shape for hidden in trace.values()] == [(*shape[:2], 10)]
