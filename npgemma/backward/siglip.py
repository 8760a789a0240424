"""SigLIP's vision tower backwards: from the vectors of the patches to the pixels.

*Next:* ``backward/contrastive.py``.
"""

import dataclasses

import numpy as np

from npgemma.attention import attend
from npgemma.backward.attention import attend_backward
from npgemma.backward.ops import einsum_backward, gelu_backward, layer_norm_backward, sum_over_uses
from npgemma.ops import einsum, gelu, layer_norm
from npgemma.params import VisionAttentionParams, VisionBlockParams, VisionMLPParams, VisionParams
from npgemma.siglip import block, embed_patches, patchify, self_attention


def encode_backward(dfeatures_BTD, pixels_BYXC, p, config):
    """Run the tower backwards, to the pixels. They do not learn; their gradient shows what would change the loss."""
    patch_BTCyx = patchify(pixels_BYXC, config.patch_size)
    streams = [embed_patches(patch_BTCyx, p)]
    for block_params in p.blocks:
        streams.append(block(streams[-1], block_params, config))
    back_BTD, dnorm = layer_norm_backward(dfeatures_BTD, streams.pop(), p.norm, config.epsilon)
    dblocks = []
    for block_params in reversed(p.blocks):
        back_BTD, dblock = block_backward(back_BTD, streams.pop(), block_params, config)
        dblocks.insert(0, dblock)
    dpatch_BTCyx, dp = embed_patches_backward(back_BTD, patch_BTCyx, p)
    dpixels_BYXC = patchify_backward(dpatch_BTCyx, pixels_BYXC, config.patch_size)
    return dpixels_BYXC, dataclasses.replace(dp, blocks=tuple(dblocks), norm=dnorm)


def patchify_backward(dpatch_BTCyx, pixels_BYXC, patch_size):
    """Put the gradients of the patches back where their pixels were cut out; what was dropped has none."""
    B, Y, X, C = pixels_BYXC.shape
    U, W = Y // patch_size, X // patch_size
    grid = dpatch_BTCyx.reshape(B, U, W, C, patch_size, patch_size).transpose(0, 1, 4, 2, 5, 3)
    whole = grid.reshape(B, U * patch_size, W * patch_size, C)
    dpixels_BYXC = np.pad(whole, ((0, 0), (0, Y - whole.shape[1]), (0, X - whole.shape[2]), (0, 0)))
    return dpixels_BYXC


def embed_patches_backward(dembedded_BTD, patch_BTCyx, p):
    """Return the gradients of the patches and of what embeds them; the position embedding sums over B alone."""
    dpatch_BTCyx, dkernel = einsum_backward(dembedded_BTD, "BTCyx,CyxD->BTD", patch_BTCyx, p.patch_embedding)
    added = (sum_over_uses(dembedded_BTD, each) for each in (p.patch_embedding_bias, p.position_embedding))
    return dpatch_BTCyx, VisionParams(dkernel, *added, blocks=None, norm=None)


def block_backward(dout_BTD, x_BTD, p, config):
    """Return the gradients of the residual stream and of a block's weights.

    ``out = mid + mlp(norm(mid))``: mid is used twice, as it is and by the MLP. So its gradient is the sum of two,
    ``dout`` itself and what comes back through the MLP; and so for x and attention. The first of the two passes every
    block unchanged: without these sums a gradient would be a product of the slopes of all layers, which after thirty
    is next to nothing, or far too much.
    """
    normed_BTD = layer_norm(x_BTD, p.attn_norm, config.epsilon)
    mid_BTD = x_BTD + self_attention(normed_BTD, p.attn)
    mid_normed_BTD = layer_norm(mid_BTD, p.mlp_norm, config.epsilon)
    dmid_normed_BTD, dmlp = mlp_backward(dout_BTD, mid_normed_BTD, p.mlp)
    through_mlp_BTD, dmlp_norm = layer_norm_backward(dmid_normed_BTD, mid_BTD, p.mlp_norm, config.epsilon)
    dmid_BTD = dout_BTD + through_mlp_BTD
    dnormed_BTD, dattn = self_attention_backward(dmid_BTD, normed_BTD, p.attn)
    through_attn_BTD, dattn_norm = layer_norm_backward(dnormed_BTD, x_BTD, p.attn_norm, config.epsilon)
    dx_BTD = dmid_BTD + through_attn_BTD
    return dx_BTD, VisionBlockParams(attn_norm=dattn_norm, attn=dattn, mlp_norm=dmlp_norm, mlp=dmlp)


def self_attention_backward(dout_BTD, x_BTD, p):
    """Return the gradients of the patches, each a sum from its query, its key and its value, and of the weights."""
    q_BTNH = einsum("BTD,DNH->BTNH", x_BTD, p.q) + p.q_bias
    k_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.k) + p.k_bias
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v) + p.v_bias
    mixed_BTNH = attend(q_BTNH, k_BTKH, v_BTKH)
    dmixed_BTNH, do = einsum_backward(dout_BTD, "BTNH,NHD->BTD", mixed_BTNH, p.o)
    dq_BTNH, dk_BTKH, dv_BTKH = attend_backward(dmixed_BTNH, q_BTNH, k_BTKH, v_BTKH)
    from_q_BTD, dq = einsum_backward(dq_BTNH, "BTD,DNH->BTNH", x_BTD, p.q)
    from_k_BTD, dk = einsum_backward(dk_BTKH, "BTD,DKH->BTKH", x_BTD, p.k)
    from_v_BTD, dv = einsum_backward(dv_BTKH, "BTD,DKH->BTKH", x_BTD, p.v)
    dx_BTD = from_q_BTD + from_k_BTD + from_v_BTD
    return dx_BTD, VisionAttentionParams(
        q=dq, q_bias=sum_over_uses(dq_BTNH, p.q_bias), k=dk, k_bias=sum_over_uses(dk_BTKH, p.k_bias),
        v=dv, v_bias=sum_over_uses(dv_BTKH, p.v_bias), o=do, o_bias=sum_over_uses(dout_BTD, p.o_bias),
    )  # fmt: skip


def mlp_backward(dout_BTD, x_BTD, p):
    """Return the gradients of the patches and of the MLP's weights."""
    before_BTF = einsum("BTD,DF->BTF", x_BTD, p.up) + p.up_bias
    dhidden_BTF, ddown = einsum_backward(dout_BTD, "BTF,FD->BTD", gelu(before_BTF), p.down)
    dbefore_BTF = gelu_backward(dhidden_BTF, before_BTF)
    dx_BTD, dup = einsum_backward(dbefore_BTF, "BTD,DF->BTF", x_BTD, p.up)
    return dx_BTD, VisionMLPParams(
        dup, sum_over_uses(dbefore_BTF, p.up_bias), ddown, sum_over_uses(dout_BTD, p.down_bias)
    )
