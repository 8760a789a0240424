"""Gemma 2 backwards: what differs from ``backward/gemma.py``. Caps take slope away from large scores and logits.

*Next:* ``backward/paligemma.py``. *Skip on a first reading:* all of it.
"""

import math

import numpy as np

from npgemma.backward.gemma import embed_tokens_backward, geglu_backward  # noqa: F401 (looked up here)
from npgemma.backward.ops import einsum_backward, rms_norm_backward, soft_cap_backward, softmax_backward
from npgemma.backward.rope import rotate_backward
from npgemma.config import SLIDING
from npgemma.gemma2 import attend, block, geglu, grouped_query_attention
from npgemma.mask import positions, prefix_lm, sliding_window
from npgemma.ops import einsum, rms_norm, soft_cap, softmax
from npgemma.params import AttentionParams, Gemma2BlockParams, Gemma2TextParams
from npgemma.rope import angles, rotate


def run_blocks_backward(dfinal_BTD, x_BTD, prefix_BS, valid_BS, p, config):
    """Run the final norm backwards, then the blocks from the last to the first, each with its own kind of mask."""
    new = x_BTD.shape[1]
    angle_BTh = angles(positions(valid_BS, new), config.head_width, config.rope_theta)
    full_BTS = prefix_lm(prefix_BS, valid_BS, new)
    near_BTS = sliding_window(prefix_BS, valid_BS, new, config.sliding_window)
    layers = [(near_BTS if kind == SLIDING else full_BTS, each) for kind, each in zip(config.layer_types, p.blocks)]
    streams = [x_BTD]
    for mask_BTS, block_params in layers:
        streams.append(block(streams[-1], angle_BTh, mask_BTS, block_params, config))
    back_BTD, dnorm = rms_norm_backward(dfinal_BTD, streams.pop(), p.norm, config.epsilon)
    dblocks = []
    for mask_BTS, block_params in reversed(layers):
        back_BTD, dblock = block_backward(back_BTD, streams.pop(), angle_BTh, mask_BTS, block_params, config)
        dblocks.insert(0, dblock)
    return back_BTD, Gemma2TextParams(embedding=None, blocks=tuple(dblocks), norm=dnorm)


def block_backward(dout_BTD, x_BTD, angle_BTh, mask_BTS, p, config):
    """Return the gradients of the residual stream and of a block's weights, of four norms."""
    normed_BTD = rms_norm(x_BTD, p.attn_norm, config.epsilon)
    attn_out_BTD = grouped_query_attention(normed_BTD, angle_BTh, mask_BTS, p.attn, config)
    mid_BTD = x_BTD + rms_norm(attn_out_BTD, p.attn_out_norm, config.epsilon)
    mid_normed_BTD = rms_norm(mid_BTD, p.mlp_norm, config.epsilon)
    mlp_out_BTD = geglu(mid_normed_BTD, p.mlp)
    dmlp_out_BTD, dmlp_out_norm = rms_norm_backward(dout_BTD, mlp_out_BTD, p.mlp_out_norm, config.epsilon)
    dmid_normed_BTD, dmlp = geglu_backward(dmlp_out_BTD, mid_normed_BTD, p.mlp)
    through_mlp_BTD, dmlp_norm = rms_norm_backward(dmid_normed_BTD, mid_BTD, p.mlp_norm, config.epsilon)
    dmid_BTD = dout_BTD + through_mlp_BTD
    dattn_out_BTD, dattn_out_norm = rms_norm_backward(dmid_BTD, attn_out_BTD, p.attn_out_norm, config.epsilon)
    dnormed_BTD, dattn = grouped_query_attention_backward(
        dattn_out_BTD, normed_BTD, angle_BTh, mask_BTS, p.attn, config
    )
    through_attn_BTD, dattn_norm = rms_norm_backward(dnormed_BTD, x_BTD, p.attn_norm, config.epsilon)
    dx_BTD = dmid_BTD + through_attn_BTD
    return dx_BTD, Gemma2BlockParams(
        attn_norm=dattn_norm, attn=dattn, attn_out_norm=dattn_out_norm,
        mlp_norm=dmlp_norm, mlp=dmlp, mlp_out_norm=dmlp_out_norm,
    )  # fmt: skip


def grouped_query_attention_backward(dout_BTD, x_BTD, angle_BTh, mask_BTS, p, config):
    """Return the gradients of the tokens and of the weights of attention."""
    straight_q_BTNH, straight_k_BTKH = einsum("BTD,DNH->BTNH", x_BTD, p.q), einsum("BTD,DKH->BTKH", x_BTD, p.k)
    q_BTNH, k_BTKH = rotate(straight_q_BTNH, angle_BTh), rotate(straight_k_BTKH, angle_BTh)
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v)
    mixed_BTNH = attend(q_BTNH, k_BTKH, v_BTKH, mask_BTS, config)
    dmixed_BTNH, do = einsum_backward(dout_BTD, "BTNH,NHD->BTD", mixed_BTNH, p.o)
    dq_BTNH, dk_BTKH, dv_BTKH = attend_backward(dmixed_BTNH, q_BTNH, k_BTKH, v_BTKH, mask_BTS, config)
    from_q_BTD, dq = einsum_backward(rotate_backward(dq_BTNH, straight_q_BTNH, angle_BTh), "BTD,DNH->BTNH", x_BTD, p.q)
    from_k_BTD, dk = einsum_backward(rotate_backward(dk_BTKH, straight_k_BTKH, angle_BTh), "BTD,DKH->BTKH", x_BTD, p.k)
    from_v_BTD, dv = einsum_backward(dv_BTKH, "BTD,DKH->BTKH", x_BTD, p.v)
    dx_BTD = from_q_BTD + from_k_BTD + from_v_BTD
    return dx_BTD, AttentionParams(q=dq, k=dk, v=dv, o=do)


def attend_backward(dmixed_BTNH, q_BTNH, k_BSKH, v_BSKH, mask_BTS, config):
    """Return the gradients of queries, keys and values; between softmax and product stands the cap."""
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    scale = math.sqrt(config.query_pre_attn_scalar)
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / scale
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    capped_BKGTS = soft_cap(score_BKGTS, config.attention_softcap)
    masked_BKGTS = np.where(mask_BTS[:, None, None], capped_BKGTS, -math.inf)
    weight_BKGTS = softmax(masked_BKGTS)
    dmixed_BTKGH = dmixed_BTNH.reshape(B, T, K, N // K, H)
    dweight_BKGTS, dv_BSKH = einsum_backward(dmixed_BTKGH, "BKGTS,BSKH->BTKGH", weight_BKGTS, v_BSKH)
    dcapped_BKGTS = softmax_backward(dweight_BKGTS, masked_BKGTS)
    dscore_BKGTS = soft_cap_backward(dcapped_BKGTS, score_BKGTS, config.attention_softcap)
    dq_BTKGH, dk_BSKH = einsum_backward(dscore_BKGTS, "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    dq_BTNH = dq_BTKGH.reshape(B, T, N, H) / scale
    return dq_BTNH, dk_BSKH, dv_BSKH


def unembed_backward(dlogit_BTV, final_BTD, p, config):
    """Return the gradients of the vectors and of the embedding table, as the output head with its cap."""
    product_BTV = einsum("BTD,VD->BTV", final_BTD, p.embedding)
    dproduct_BTV = soft_cap_backward(dlogit_BTV, product_BTV, config.final_softcap)
    dfinal_BTD, dembedding_VD = einsum_backward(dproduct_BTV, "BTD,VD->BTV", final_BTD, p.embedding)
    return dfinal_BTD, dembedding_VD
