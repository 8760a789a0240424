"""The twin of ``npgemma/gemma2.py``, which explains what both do."""

import math

import torch

from npgemma.config import SLIDING
from torch_ref.blocks import in_blocks_of_queries
from torch_ref.gemma import embed_tokens, geglu  # noqa: F401 (`paligemma` looks up embed_tokens here)
from torch_ref.mask import positions, prefix_lm, sliding_window
from torch_ref.ops import einsum, rms_norm, soft_cap, softmax
from torch_ref.rope import angles, rotate


def run_blocks(x_BTD, prefix_BS, valid_BS, p, config, cache=None):
    """Run all blocks, each with its own kind of mask, and the final norm."""
    new = x_BTD.shape[1]
    angle_BTh = angles(positions(valid_BS, new), config.head_width, config.rope_theta)
    full_BTS = prefix_lm(prefix_BS, valid_BS, new)
    near_BTS = sliding_window(prefix_BS, valid_BS, new, config.sliding_window)
    stream_BTD = x_BTD
    for i, block_params in enumerate(p.blocks):
        layer_cache = None if cache is None else cache.layer(i)
        mask_BTS = near_BTS if config.layer_types[i] == SLIDING else full_BTS
        stream_BTD = block(stream_BTD, angle_BTh, mask_BTS, block_params, config, layer_cache)
    if cache is not None:
        cache.advance(new)
    final_BTD = rms_norm(stream_BTD, p.norm, config.epsilon)
    return final_BTD


def block(x_BTD, angle_BTh, mask_BTS, p, config, cache=None):
    """Transformer block with norms before and after: residual self-attention, then residual GeGLU MLP."""
    normed_BTD = rms_norm(x_BTD, p.attn_norm, config.epsilon)
    attn_out_BTD = grouped_query_attention(normed_BTD, angle_BTh, mask_BTS, p.attn, config, cache)
    mid_BTD = x_BTD + rms_norm(attn_out_BTD, p.attn_out_norm, config.epsilon)
    mlp_out_BTD = geglu(rms_norm(mid_BTD, p.mlp_norm, config.epsilon), p.mlp)
    out_BTD = mid_BTD + rms_norm(mlp_out_BTD, p.mlp_out_norm, config.epsilon)
    return out_BTD


def grouped_query_attention(x_BTD, angle_BTh, mask_BTS, p, config, cache=None):
    """Self-attention: every token gathers values from the tokens that its mask allows."""
    q_BTNH = rotate(einsum("BTD,DNH->BTNH", x_BTD, p.q), angle_BTh)
    k_BTKH = rotate(einsum("BTD,DKH->BTKH", x_BTD, p.k), angle_BTh)
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v)
    k_BSKH, v_BSKH = (k_BTKH, v_BTKH) if cache is None else cache.extend(k_BTKH, v_BTKH)
    mixed_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, config)
    out_BTD = einsum("BTNH,NHD->BTD", mixed_BTNH, p.o)
    return out_BTD


@in_blocks_of_queries
def attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, config):
    """For each query, average the values, weighted by the softmax of soft-capped query-key similarity."""
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / math.sqrt(config.query_pre_attn_scalar)
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    capped_BKGTS = soft_cap(score_BKGTS, config.attention_softcap)
    masked_BKGTS = torch.where(mask_BTS[:, None, None], capped_BKGTS, -math.inf)
    weight_BKGTS = softmax(masked_BKGTS)
    mixed_BTKGH = einsum("BKGTS,BSKH->BTKGH", weight_BKGTS, v_BSKH)
    mixed_BTNH = mixed_BTKGH.reshape(B, T, N, H)
    return mixed_BTNH


def unembed(final_BTD, p, config):
    """Return the logit of every vocabulary row as the next token: its soft-capped product with the embedding table."""
    logit_BTV = soft_cap(einsum("BTD,VD->BTV", final_BTD, p.embedding), config.final_softcap)
    return logit_BTV
