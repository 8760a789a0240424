"""gemma2.py against its twin and torch's primitives."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import GEMMA_2, assert_close, random, tensor
from test_gemma import torch_mlp, turned
from torch.nn.attention.flex_attention import flex_attention

import conversion
import torch_ref.gemma2 as twin
from npgemma import gemma2
from npgemma.config import FULL, SLIDING
from npgemma.mask import prefix_lm, sliding_window
from npgemma.params import map_leaves
from npgemma.porting.bounds import OPERATION
from npgemma.rope import angles

B, T = 2, 7
TEXT = GEMMA_2.text


@pytest.fixture
def params(dtype):
    return conversion.random_params(GEMMA_2, 0, dtype).text


@pytest.fixture
def setting(dtype):
    """Normalised tokens, angles, and masks with prefix and padding."""
    x = random((B, T, TEXT.width), 1, dtype)
    angle = angles(np.arange(B * T).reshape(B, T), TEXT.head_width, 10000.0)
    prefix, valid = np.arange(T) < np.array([[3], [5]]), np.ones((B, T), dtype=bool)
    valid[1, 2] = False
    return x, angle, sliding_window(prefix, valid, T, TEXT.sliding_window)


def torch_attend(q, k, v, mask):
    """Torch's flexible attention: the scale is an argument, and it is told what to make of each score."""

    def modified(score, b, h, query, key):
        capped = TEXT.attention_softcap * torch.tanh(score / TEXT.attention_softcap)
        return torch.where(mask[b, query, key], capped, -math.inf)

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scale = TEXT.query_pre_attn_scalar**-0.5
    return flex_attention(q, k, v, score_mod=modified, scale=scale, enable_gqa=True).transpose(1, 2)


def torch_attention(x, angle, mask, p):
    def heads(weight, count):
        flat = tensor(weight).reshape(TEXT.width, count * TEXT.head_width).T
        return F.linear(x, flat).unflatten(-1, (count, TEXT.head_width))

    q, k = (turned(heads(w, n), angle) for w, n in ((p.q, TEXT.query_heads), (p.k, TEXT.key_value_heads)))
    mixed = torch_attend(q, k, heads(p.v, TEXT.key_value_heads), mask).flatten(2)
    return F.linear(mixed, tensor(p.o).flatten(0, 1).T)


def torch_block(x, angle, mask, p):
    def norm(x, gain):
        return F.rms_norm(x, x.shape[-1:], 1 + tensor(gain), TEXT.epsilon)

    x = x + norm(torch_attention(norm(x, p.attn_norm), angle, mask, p.attn), p.attn_out_norm)
    return x + norm(torch_mlp(norm(x, p.mlp_norm), p.mlp), p.mlp_out_norm)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attend(dtype, setting):
    q = random((B, T, TEXT.query_heads, TEXT.head_width), 2, dtype, scale=2)
    k, v = (random((B, T, TEXT.key_value_heads, TEXT.head_width), seed, dtype) for seed in (3, 4))
    mask = setting[2]
    tensors = [tensor(x) for x in (q, k, v, mask)]
    expected = torch_attend(*tensors)
    assert_close(expected, gemma2.attend(q, k, v, mask, TEXT), OPERATION[dtype])
    assert_close(expected, twin.attend(*tensors, TEXT), OPERATION[dtype])


def test_what_is_masked_is_never_read_however_the_cap():
    q, k, v = (random((1, 3, 6, 14), seed) for seed in range(3))
    mask = np.array([[[True, False, True]] * 3])
    before = gemma2.attend(q, k, v, mask, TEXT)
    k[:, 1], v[:, 1] = 1e6, -1e6
    assert np.array_equal(gemma2.attend(q, k, v, mask, TEXT), before)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_grouped_query_attention(params, dtype, setting):
    """Its output projection takes more channels than the model has: 6 heads of 14, and a width of 30."""
    p, tensors = params.blocks[0].attn, [tensor(a) for a in setting]
    expected = torch_attention(*tensors, p)
    assert_close(expected, gemma2.grouped_query_attention(*setting, p, TEXT), OPERATION[dtype])
    assert_close(expected, twin.grouped_query_attention(*tensors, map_leaves(tensor, p), TEXT), OPERATION[dtype])
    assert TEXT.query_heads * TEXT.head_width > TEXT.width


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("scale", [1.0, 1e-3])  # small activations show the epsilon
def test_block(params, dtype, setting, scale):
    x, angle, mask = setting
    x, p = (scale * x).astype(dtype), params.blocks[1]
    tensors = tensor(x), tensor(angle), tensor(mask)
    expected = torch_block(*tensors, p)
    assert_close(expected, gemma2.block(x, angle, mask, p, TEXT), OPERATION[dtype])
    assert_close(expected, twin.block(*tensors, map_leaves(tensor, p), TEXT), OPERATION[dtype])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kinds", [(SLIDING, FULL, FULL), (FULL, SLIDING, SLIDING)])
def test_each_layer_has_the_mask_that_the_config_says(params, dtype, setting, kinds):
    config = dataclasses.replace(TEXT, layer_types=kinds)
    prefix, valid = np.arange(T) < np.array([[2], [2]]), np.ones((B, T), dtype=bool)
    angle = angles(np.arange(T)[None].repeat(B, 0), TEXT.head_width, TEXT.rope_theta)
    masks = {FULL: prefix_lm(prefix, valid, T), SLIDING: sliding_window(prefix, valid, T, TEXT.sliding_window)}
    x = tensor(setting[0])
    for kind, p in zip(kinds, params.blocks):
        x = torch_block(x, tensor(angle), tensor(masks[kind]), p)
    expected = F.rms_norm(x, x.shape[-1:], 1 + tensor(params.norm), TEXT.epsilon)
    assert_close(expected, gemma2.run_blocks(setting[0], prefix, valid, params, config), 3 * OPERATION[dtype])
    found = twin.run_blocks(*map(tensor, (setting[0], prefix, valid)), map_leaves(tensor, params), config)
    assert_close(expected, found, 3 * OPERATION[dtype])


def test_unembed_is_the_embedding_table_soft_capped(params, dtype, setting):
    cap, x = TEXT.final_softcap, setting[0]
    expected = cap * torch.tanh(F.linear(tensor(x), tensor(params.embedding)) / cap)
    assert_close(expected, gemma2.unembed(x, params, TEXT), OPERATION[dtype])
    assert_close(expected, twin.unembed(tensor(x), map_leaves(tensor, params), TEXT), OPERATION[dtype])
    assert np.abs(gemma2.unembed(9 * x, params, TEXT)).max() <= cap
