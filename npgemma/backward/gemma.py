"""Gemma backwards: from the logits to the tokens that went in.

*Next:* ``backward/gemma2.py``.
"""

import math

import numpy as np

from npgemma.attention import attend
from npgemma.backward.attention import attend_backward
from npgemma.backward.ops import einsum_backward, gelu_backward, rms_norm_backward
from npgemma.backward.rope import rotate_backward
from npgemma.gemma import block, grouped_query_attention
from npgemma.mask import positions, prefix_lm
from npgemma.ops import einsum, gelu, rms_norm
from npgemma.params import AttentionParams, BlockParams, MLPParams, TextParams
from npgemma.rope import angles, rotate


def embed_tokens_backward(dtext_BTD, ids_BT, p):
    """Return the gradient of the table: each token's, times sqrt(D), is added to the row that it was read from."""
    dembedding_VD = np.zeros_like(p.embedding)
    # Not dembedding_VD[ids_BT] += ..., which adds only once for a row that is named twice.
    np.add.at(dembedding_VD, ids_BT, dtext_BTD * math.sqrt(p.embedding.shape[1]))
    return dembedding_VD


def run_blocks_backward(dfinal_BTD, x_BTD, prefix_BS, valid_BS, p, config):
    """Run the final norm and the blocks backwards; forward first, since each needs the stream that went into it."""
    angle_BTh = angles(positions(valid_BS, x_BTD.shape[1]), config.head_width, config.rope_theta)
    mask_BTS = prefix_lm(prefix_BS, valid_BS, x_BTD.shape[1])
    streams = [x_BTD]
    for block_params in p.blocks:
        streams.append(block(streams[-1], angle_BTh, mask_BTS, block_params, config))
    back_BTD, dnorm = rms_norm_backward(dfinal_BTD, streams.pop(), p.norm, config.epsilon)
    dblocks = []
    for block_params in reversed(p.blocks):
        back_BTD, dblock = block_backward(back_BTD, streams.pop(), angle_BTh, mask_BTS, block_params, config)
        dblocks.insert(0, dblock)
    return back_BTD, TextParams(embedding=None, blocks=tuple(dblocks), norm=dnorm)


def block_backward(dout_BTD, x_BTD, angle_BTh, mask_BTS, p, config):
    """Return the gradients of the residual stream and of a block's weights, as in `npgemma.backward.siglip`."""
    normed_BTD = rms_norm(x_BTD, p.attn_norm, config.epsilon)
    mid_BTD = x_BTD + grouped_query_attention(normed_BTD, angle_BTh, mask_BTS, p.attn)
    mid_normed_BTD = rms_norm(mid_BTD, p.mlp_norm, config.epsilon)
    dmid_normed_BTD, dmlp = geglu_backward(dout_BTD, mid_normed_BTD, p.mlp)
    through_mlp_BTD, dmlp_norm = rms_norm_backward(dmid_normed_BTD, mid_BTD, p.mlp_norm, config.epsilon)
    dmid_BTD = dout_BTD + through_mlp_BTD
    dnormed_BTD, dattn = grouped_query_attention_backward(dmid_BTD, normed_BTD, angle_BTh, mask_BTS, p.attn)
    through_attn_BTD, dattn_norm = rms_norm_backward(dnormed_BTD, x_BTD, p.attn_norm, config.epsilon)
    dx_BTD = dmid_BTD + through_attn_BTD
    return dx_BTD, BlockParams(attn_norm=dattn_norm, attn=dattn, mlp_norm=dmlp_norm, mlp=dmlp)


def grouped_query_attention_backward(dout_BTD, x_BTD, angle_BTh, mask_BTS, p):
    """Return the gradients of the tokens, a sum of what comes back through query, key and value, and of the weights."""
    straight_q_BTNH, straight_k_BTKH = einsum("BTD,DNH->BTNH", x_BTD, p.q), einsum("BTD,DKH->BTKH", x_BTD, p.k)
    q_BTNH, k_BTKH = rotate(straight_q_BTNH, angle_BTh), rotate(straight_k_BTKH, angle_BTh)
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v)
    mixed_BTNH = attend(q_BTNH, k_BTKH, v_BTKH, mask_BTS)
    dmixed_BTNH, do = einsum_backward(dout_BTD, "BTNH,NHD->BTD", mixed_BTNH, p.o)
    dq_BTNH, dk_BTKH, dv_BTKH = attend_backward(dmixed_BTNH, q_BTNH, k_BTKH, v_BTKH, mask_BTS)
    from_q_BTD, dq = einsum_backward(rotate_backward(dq_BTNH, straight_q_BTNH, angle_BTh), "BTD,DNH->BTNH", x_BTD, p.q)
    from_k_BTD, dk = einsum_backward(rotate_backward(dk_BTKH, straight_k_BTKH, angle_BTh), "BTD,DKH->BTKH", x_BTD, p.k)
    from_v_BTD, dv = einsum_backward(dv_BTKH, "BTD,DKH->BTKH", x_BTD, p.v)
    dx_BTD = from_q_BTD + from_k_BTD + from_v_BTD
    return dx_BTD, AttentionParams(q=dq, k=dk, v=dv, o=do)


def geglu_backward(dout_BTD, x_BTD, p):
    """Return the gradients of the tokens and of the weights of the gated MLP.

    ``hidden = gate * up``, and each factor's slope is the other: where the gate is closed, ``up`` learns nothing.
    """
    before_BTF = einsum("BTD,DF->BTF", x_BTD, p.gate)
    gate_BTF, up_BTF = gelu(before_BTF), einsum("BTD,DF->BTF", x_BTD, p.up)
    dhidden_BTF, ddown = einsum_backward(dout_BTD, "BTF,FD->BTD", gate_BTF * up_BTF, p.down)
    dgate_BTF, dup_BTF = dhidden_BTF * up_BTF, dhidden_BTF * gate_BTF
    from_gate_BTD, dgate = einsum_backward(gelu_backward(dgate_BTF, before_BTF), "BTD,DF->BTF", x_BTD, p.gate)
    from_up_BTD, dup = einsum_backward(dup_BTF, "BTD,DF->BTF", x_BTD, p.up)
    dx_BTD = from_gate_BTD + from_up_BTD
    return dx_BTD, MLPParams(gate=dgate, up=dup, down=ddown)


def unembed_backward(dlogit_BTV, final_BTD, p, config):
    """Return the gradients of the vectors and of the embedding table as the output head.

    ``dlogit`` is the probability of a token, less 1 for the right one (``backward/loss.py``). So a step moves the right
    token's row of the table towards the vector, and every other row away from it, the more the more probable it
    was. The table is used twice, to read tokens and to write them: `embed_tokens_backward` has its other gradient.
    """
    dfinal_BTD, dembedding_VD = einsum_backward(dlogit_BTV, "BTD,VD->BTV", final_BTD, p.embedding)
    return dfinal_BTD, dembedding_VD
