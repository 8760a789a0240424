"""siglip.py against its twin, torch's convolution, and torch's own transformer layer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import CONFIGS, assert_close, random, tensor

import conversion
import torch_ref.siglip as twin
from npgemma import siglip
from npgemma.params import map_leaves
from npgemma.porting.bounds import OPERATION
from torch_ref.backend import to_torch

CONFIG = CONFIGS["one key/value head"]
VISION = CONFIG.vision


@pytest.fixture
def params(dtype):
    return conversion.random_params(CONFIG, 0, dtype).vision


def torch_layer(p, dtype):
    """Torch's pre-norm transformer layer with our weights in it."""
    layer = torch.nn.TransformerEncoderLayer(
        VISION.width, VISION.heads, VISION.mlp_width, dropout=0.0, batch_first=True, norm_first=True,
        activation=lambda x: F.gelu(x, approximate="tanh"), layer_norm_eps=VISION.epsilon, dtype=getattr(torch, dtype),
    )  # fmt: skip
    D = VISION.width
    q, k, v = (tensor(w).reshape(D, D).T for w in (p.attn.q, p.attn.k, p.attn.v))
    biases = (tensor(b).flatten() for b in (p.attn.q_bias, p.attn.k_bias, p.attn.v_bias))
    weights = {
        "self_attn.in_proj_weight": torch.cat([q, k, v]),
        "self_attn.in_proj_bias": torch.cat(list(biases)),
        "self_attn.out_proj.weight": tensor(p.attn.o).reshape(D, D).T,
        "self_attn.out_proj.bias": tensor(p.attn.o_bias),
        "linear1.weight": tensor(p.mlp.up).T,
        "linear1.bias": tensor(p.mlp.up_bias),
        "linear2.weight": tensor(p.mlp.down).T,
        "linear2.bias": tensor(p.mlp.down_bias),
        "norm1.weight": tensor(p.attn_norm.scale),
        "norm1.bias": tensor(p.attn_norm.bias),
        "norm2.weight": tensor(p.mlp_norm.scale),
        "norm2.bias": tensor(p.mlp_norm.bias),
    }
    layer.load_state_dict(weights)
    # In training mode: evaluation switches to a fused kernel with the exact GELU.
    return layer.train()


def test_patches_and_their_product_are_a_convolution(params, dtype):
    pixels = random((2, 28, 28, 3), 1, dtype)
    kernel = tensor(params.patch_embedding).permute(3, 0, 1, 2)
    bias, stride = tensor(params.patch_embedding_bias), VISION.patch_size
    expected = F.conv2d(tensor(pixels).permute(0, 3, 1, 2), kernel, bias, stride=stride)
    expected = expected.flatten(2).transpose(1, 2) + tensor(params.position_embedding)
    patches = siglip.patchify(pixels, VISION.patch_size)
    assert_close(expected, siglip.embed_patches(patches, params), OPERATION[dtype])
    twin_patches = twin.patchify(tensor(pixels), VISION.patch_size)
    assert torch.equal(twin_patches, tensor(patches))
    assert_close(expected, twin.embed_patches(twin_patches, map_leaves(tensor, params)), OPERATION[dtype])


def test_patches_are_in_reading_order():
    pixels = np.arange(4 * 6 * 3, dtype=np.float64).reshape(1, 4, 6, 3)
    patches = siglip.patchify(pixels, 2)
    assert patches.shape == (1, 6, 3, 2, 2)
    assert np.array_equal(patches[0, 4], pixels[0, 2:4, 2:4].transpose(2, 0, 1))


def test_an_uneven_rest_is_dropped_like_a_convolution_does():
    pixels = random((1, 9, 11, 3), 0)
    assert np.array_equal(siglip.patchify(pixels, 4), siglip.patchify(pixels[:, :8, :8], 4))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_block_is_a_pre_norm_transformer_layer(params, dtype, scale):
    x, p = random((2, 5, VISION.width), 1, dtype, scale), params.blocks[0]
    with torch.no_grad():
        expected = torch_layer(p, dtype)(tensor(x))
    assert_close(expected, siglip.block(x, p, VISION), OPERATION[dtype])
    assert_close(expected, twin.block(tensor(x), map_leaves(tensor, p), VISION), OPERATION[dtype])


def test_self_attention_is_torchs_multi_head_attention(params, dtype):
    x, p = random((2, 5, VISION.width), 1, dtype), params.blocks[0]
    with torch.no_grad():
        expected = torch_layer(p, dtype).self_attn(tensor(x), tensor(x), tensor(x))[0]
    assert_close(expected, siglip.self_attention(x, p.attn), OPERATION[dtype])


def test_mlp_is_two_linear_maps(params, dtype):
    x, p = random((2, 5, VISION.width), 1, dtype), params.blocks[0].mlp
    hidden = F.gelu(F.linear(tensor(x), tensor(p.up).T, tensor(p.up_bias)), approximate="tanh")
    expected = F.linear(hidden, tensor(p.down).T, tensor(p.down_bias))
    assert_close(expected, siglip.mlp(x, p), OPERATION[dtype])


def test_encode_is_all_blocks_then_a_norm(params, dtype):
    pixels = random((2, 28, 28, 3), 1, dtype)
    x = tensor(siglip.embed_patches(siglip.patchify(pixels, VISION.patch_size), params))
    with torch.no_grad():
        for block in params.blocks:
            x = torch_layer(block, dtype)(x)
    expected = F.layer_norm(x, x.shape[-1:], tensor(params.norm.scale), tensor(params.norm.bias), VISION.epsilon)
    assert_close(expected, siglip.encode(pixels, params, VISION), OPERATION[dtype])
    tensors = to_torch(params, dtype)
    assert_close(expected, twin.encode(tensor(pixels), tensors, VISION), OPERATION[dtype])
