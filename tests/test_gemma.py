"""gemma.py against its twin and torch's primitives."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import GEMMA, assert_close, random, tensor

import conversion
import torch_ref.gemma as twin
from npgemma import gemma
from npgemma.mask import prefix_lm
from npgemma.params import map_leaves
from npgemma.porting.bounds import OPERATION
from npgemma.rope import angles

B, T = 2, 7


@pytest.fixture(params=GEMMA)
def config(request):
    return GEMMA[request.param]


@pytest.fixture
def params(config, dtype):
    return conversion.random_params(config, 0, dtype).text


@pytest.fixture
def setting(config, dtype):
    """Normalised tokens, angles and a mask with prefix and padding."""
    x = random((B, T, config.text.width), 1, dtype)
    angle = angles(np.arange(B * T).reshape(B, T), config.text.head_width, 10000.0)
    prefix, valid = np.arange(T) < np.array([[3], [5]]), np.ones((B, T), dtype=bool)
    valid[1, 2] = False
    return x, angle, prefix_lm(prefix, valid, T)


def turned(x, angle):
    """Rotation by complex numbers, as in test_rope."""
    halves = torch.complex(*x.double().chunk(2, dim=-1))
    halves = halves * torch.polar(torch.ones_like(angle), angle)[:, :, None]
    return torch.cat([halves.real, halves.imag], dim=-1).to(x.dtype)


def torch_attention(x, angle, mask, p, config):
    """Grouped-query attention of torch's linear maps and attention only."""
    text = config.text

    def heads(weight, count):
        flat = tensor(weight).reshape(text.width, count * text.head_width).T
        return F.linear(x, flat).unflatten(-1, (count, text.head_width))

    q, k = (turned(heads(w, n), angle) for w, n in ((p.q, text.query_heads), (p.k, text.key_value_heads)))
    v = heads(p.v, text.key_value_heads)
    q, k, v = (y.transpose(1, 2) for y in (q, k, v))
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], enable_gqa=True).transpose(1, 2).flatten(2)
    return F.linear(read, tensor(p.o).flatten(0, 1).T)


def torch_mlp(x, p):
    gate, up, down = (tensor(w).T for w in (p.gate, p.up, p.down))
    return F.linear(F.gelu(F.linear(x, gate), approximate="tanh") * F.linear(x, up), down)


def torch_block(x, angle, mask, p, config):
    def norm(x, gain):
        return F.rms_norm(x, x.shape[-1:], 1 + tensor(gain), config.text.epsilon)

    x = x + torch_attention(norm(x, p.attn_norm), angle, mask, p.attn, config)
    return x + torch_mlp(norm(x, p.mlp_norm), p.mlp)


def test_embed_tokens_scales_by_the_root_of_the_width(params, config, dtype):
    ids = np.array([[5, 0, 96], [5, 7, 1]])
    expected = F.embedding(tensor(ids), tensor(params.embedding)) * math.sqrt(config.text.width)
    assert_close(expected, gemma.embed_tokens(ids, params), OPERATION[dtype])
    assert_close(expected, twin.embed_tokens(tensor(ids), map_leaves(tensor, params)), OPERATION[dtype])


def test_grouped_query_attention(params, config, dtype, setting):
    x, angle, mask = setting
    p = params.blocks[0].attn
    tensors = [tensor(a) for a in setting]
    expected = torch_attention(*tensors, p, config)
    assert_close(expected, gemma.grouped_query_attention(x, angle, mask, p), OPERATION[dtype])
    assert_close(expected, twin.grouped_query_attention(*tensors, map_leaves(tensor, p)), OPERATION[dtype])


def test_geglu(params, dtype, setting):
    x, p = setting[0], params.blocks[0].mlp
    expected = torch_mlp(tensor(x), p)
    assert_close(expected, gemma.geglu(x, p), OPERATION[dtype])
    assert_close(expected, twin.geglu(tensor(x), map_leaves(tensor, p)), OPERATION[dtype])


@pytest.mark.parametrize("scale", [1.0, 1e-3])  # small activations show the epsilon
def test_block(params, config, dtype, setting, scale):
    x, angle, mask = setting
    x, p = (scale * x).astype(dtype), params.blocks[1]
    expected = torch_block(tensor(x), tensor(angle), tensor(mask), p, config)
    assert_close(expected, gemma.block(x, angle, mask, p, config.text), OPERATION[dtype])
    found = twin.block(tensor(x), tensor(angle), tensor(mask), map_leaves(tensor, p), config.text)
    assert_close(expected, found, OPERATION[dtype])


def test_unembed_is_the_embedding_table(params, config, dtype, setting):
    expected = F.linear(tensor(setting[0]), tensor(params.embedding))
    assert_close(expected, gemma.unembed(setting[0], params, config.text), OPERATION[dtype])
    assert_close(expected, twin.unembed(tensor(setting[0]), map_leaves(tensor, params), config.text), OPERATION[dtype])
