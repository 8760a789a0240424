"""The twin of ``npgemma/gemma.py``, which explains what both do."""

import math

from torch_ref.attention import attend
from torch_ref.mask import positions, prefix_lm
from torch_ref.ops import einsum, gelu, rms_norm
from torch_ref.rope import angles, rotate


def embed_tokens(ids_BT, p):
    """Look up each text token's vector and scale it by the square root of the width."""
    vector_BTD = p.embedding[ids_BT]
    text_BTD = vector_BTD * math.sqrt(p.embedding.shape[1])
    return text_BTD


def run_blocks(x_BTD, prefix_BS, valid_BS, p, config, cache=None):
    """Run all blocks and the final norm."""
    new = x_BTD.shape[1]
    angle_BTh = angles(positions(valid_BS, new), config.head_width, config.rope_theta)
    mask_BTS = prefix_lm(prefix_BS, valid_BS, new)
    stream_BTD = x_BTD
    for i, block_params in enumerate(p.blocks):
        layer_cache = None if cache is None else cache.layer(i)
        stream_BTD = block(stream_BTD, angle_BTh, mask_BTS, block_params, config, layer_cache)
    if cache is not None:
        cache.advance(new)
    final_BTD = rms_norm(stream_BTD, p.norm, config.epsilon)
    return final_BTD


def block(x_BTD, angle_BTh, mask_BTS, p, config, cache=None):
    """Pre-norm transformer block: residual self-attention, then residual GeGLU MLP."""
    normed_BTD = rms_norm(x_BTD, p.attn_norm, config.epsilon)
    attn_out_BTD = grouped_query_attention(normed_BTD, angle_BTh, mask_BTS, p.attn, cache)
    mid_BTD = x_BTD + attn_out_BTD
    mlp_out_BTD = geglu(rms_norm(mid_BTD, p.mlp_norm, config.epsilon), p.mlp)
    out_BTD = mid_BTD + mlp_out_BTD
    return out_BTD


def grouped_query_attention(x_BTD, angle_BTh, mask_BTS, p, cache=None):
    """Self-attention: every token gathers values from the tokens that its mask allows."""
    q_BTNH = rotate(einsum("BTD,DNH->BTNH", x_BTD, p.q), angle_BTh)
    k_BTKH = rotate(einsum("BTD,DKH->BTKH", x_BTD, p.k), angle_BTh)
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v)
    k_BSKH, v_BSKH = (k_BTKH, v_BTKH) if cache is None else cache.extend(k_BTKH, v_BTKH)
    mixed_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS)
    out_BTD = einsum("BTNH,NHD->BTD", mixed_BTNH, p.o)
    return out_BTD


def geglu(x_BTD, p):
    """Gated MLP (GeGLU, a GELU-gated linear unit): ``(gelu(x @ gate) * (x @ up)) @ down``, for each token by itself."""
    gate_BTF = gelu(einsum("BTD,DF->BTF", x_BTD, p.gate))
    hidden_BTF = gate_BTF * einsum("BTD,DF->BTF", x_BTD, p.up)
    out_BTD = einsum("BTF,FD->BTD", hidden_BTF, p.down)
    return out_BTD


def unembed(final_BTD, p, config):
    """Return the logit of every vocabulary row as the next token: its product with the embedding table."""
    logit_BTV = einsum("BTD,VD->BTV", final_BTD, p.embedding)
    return logit_BTV
