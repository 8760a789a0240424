"""Gemma 2, the decoder of PaliGemma 2: what differs from ``gemma.py``, to be read after it.

Norms follow attention and the MLP as well as precede them; scores and logits are soft-capped; every second block has a
sliding window; and the scale of the scores is the config's. (In the sizes, two query heads share a key/value head,
where in Gemma 2B all eight do; and a second token, 107, ends an answer too.) Arguments and results are those of the
functions of the same name in ``gemma.py``; ``p`` and ``config`` are `npgemma.params.Gemma2TextParams`, or its part, and
`npgemma.config.Gemma2Config`. Official code: ``big_vision/models/ppp/gemma.py`` (variants gemma2_2b, gemma2_9b,
gemma2_27b); papers: Gemma Team, arXiv 2408.00118; Steiner et al., PaliGemma 2, arXiv 2412.03555.

*Next:* ``segmentation.py``. *Skip on a first reading:* all of it; PaliGemma 1 does without.
"""

import math

import numpy as np

from npgemma.config import SLIDING
from npgemma.fast.blocks import in_blocks_of_queries
from npgemma.gemma import embed_tokens, geglu  # noqa: F401 (`paligemma` looks up embed_tokens here)
from npgemma.mask import positions, prefix_lm, sliding_window
from npgemma.ops import einsum, rms_norm, soft_cap, softmax
from npgemma.rope import angles, rotate


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
    """Transformer block with norms before and after: residual self-attention, then residual GeGLU MLP.

    ``mid = x + norm(attention(norm(x))); out = mid + norm(mlp(norm(mid)))``

    The norm after attention, and that after the MLP, bounds what is added to the residual stream, however large the
    output before the norm has grown.
    """
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
    """For each query, average the values, weighted by the softmax of soft-capped query-key similarity.

    ``softmax(soft_cap(q k / sqrt(query_pre_attn_scalar))) v`` for each head: `npgemma.attention.attend`, with two
    differences. The cap keeps scores from growing without bound (`npgemma.ops.soft_cap`). The scale is the config's:
    28B was trained with 1 / sqrt(width / query_heads) = 1/12, where the head width would give 1/11.3.

    The cap comes before the mask: after it, a masked score of -inf would become -50, no lower than a real one may be.
    """
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / math.sqrt(config.query_pre_attn_scalar)
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    capped_BKGTS = soft_cap(score_BKGTS, config.attention_softcap)
    masked_BKGTS = np.where(mask_BTS[:, None, None], capped_BKGTS, -math.inf)
    weight_BKGTS = softmax(masked_BKGTS)
    mixed_BTKGH = einsum("BKGTS,BSKH->BTKGH", weight_BKGTS, v_BSKH)
    mixed_BTNH = mixed_BTKGH.reshape(B, T, N, H)
    return mixed_BTNH


def unembed(final_BTD, p, config):
    """Return the logit of every vocabulary row as the next token: its soft-capped product with the embedding table.

    The cap keeps the order of logits, but for those so far beyond it that tanh rounds to 1: greedy answers need no cap;
    probabilities, and what is sampled, do.
    """
    logit_BTV = soft_cap(einsum("BTD,VD->BTV", final_BTD, p.embedding), config.final_softcap)
    return logit_BTV
