"""The twin of ``npgemma/siglip.py``, which explains what both do."""

from torch_ref.attention import attend
from torch_ref.ops import einsum, gelu, layer_norm


def encode(pixels_BYXC, p, config):
    """Run the whole tower."""
    stream_BTD = embed_patches(patchify(pixels_BYXC, config.patch_size), p)
    for block_params in p.blocks:
        stream_BTD = block(stream_BTD, block_params, config)
    features_BTD = layer_norm(stream_BTD, p.norm, config.epsilon)
    return features_BTD


def patchify(pixels_BYXC, patch_size):
    """Cut images into square patches, in reading order; what is left at the right and below is dropped."""
    B, Y, X, C = pixels_BYXC.shape
    U, W = Y // patch_size, X // patch_size
    whole = pixels_BYXC[:, : U * patch_size, : W * patch_size]
    grid_BUyWxC = whole.reshape(B, U, patch_size, W, patch_size, C)
    patch_BTCyx = grid_BUyWxC.permute(0, 1, 3, 5, 2, 4).reshape(B, U * W, C, patch_size, patch_size)
    return patch_BTCyx


def embed_patches(patch_BTCyx, p):
    """Map each patch to a vector and add the learned position embedding."""
    projected_BTD = einsum("BTCyx,CyxD->BTD", patch_BTCyx, p.patch_embedding) + p.patch_embedding_bias
    embedded_BTD = projected_BTD + p.position_embedding
    return embedded_BTD


def block(x_BTD, p, config):
    """Pre-norm transformer block: residual self-attention, then residual MLP."""
    attn_out_BTD = self_attention(layer_norm(x_BTD, p.attn_norm, config.epsilon), p.attn)
    mid_BTD = x_BTD + attn_out_BTD
    mlp_out_BTD = mlp(layer_norm(mid_BTD, p.mlp_norm, config.epsilon), p.mlp)
    out_BTD = mid_BTD + mlp_out_BTD
    return out_BTD


def self_attention(x_BTD, p):
    """Self-attention: every patch gathers values from all patches, with several heads."""
    q_BTNH = einsum("BTD,DNH->BTNH", x_BTD, p.q) + p.q_bias
    k_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.k) + p.k_bias
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v) + p.v_bias
    mixed_BTNH = attend(q_BTNH, k_BTKH, v_BTKH)
    out_BTD = einsum("BTNH,NHD->BTD", mixed_BTNH, p.o) + p.o_bias
    return out_BTD


def mlp(x_BTD, p):
    """MLP: transform each patch by itself, ``gelu(x @ up) @ down``, with biases."""
    hidden_BTF = gelu(einsum("BTD,DF->BTF", x_BTD, p.up) + p.up_bias)
    out_BTD = einsum("BTF,FD->BTD", hidden_BTF, p.down) + p.down_bias
    return out_BTD
