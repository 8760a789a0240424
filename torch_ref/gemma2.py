"""Gemma 2, the decoder of PaliGemma 2: ``diff npgemma/gemma.py npgemma/gemma2.py`` shows how it differs from Gemma.

Norms follow attention and the MLP as well as precede them; scores and logits are soft-capped; every second block has a
sliding window; and the scale of the scores is the config's. Official code: ``big_vision/models/ppp/gemma.py`` (variants
gemma2_2b, gemma2_9b, gemma2_27b); papers: Gemma Team, arXiv 2408.00118; Steiner et al., PaliGemma 2, arXiv 2412.03555.
"""

import math

import torch

from npgemma.config import SLIDING
from torch_ref.blocks import in_blocks_of_queries
from torch_ref.mask import positions, prefix_lm, sliding_window
from torch_ref.ops import einsum, gelu, rms_norm, soft_cap, softmax
from torch_ref.rope import angles, rotate


def embed_tokens(ids_BT, p):
    """Look up each text token's vector and scale it by the square root of the width.

    Parameters
    ----------
    ids_BT : int array
        Text tokens, from 0 to V - 1.
    p : Gemma2TextParams

    Returns
    -------
    text_BTD : array

    Notes
    -----
    An embedding table has a row for each token of the vocabulary: the vector with which that token enters the residual
    stream. The same row is the token's output direction (`unembed`): a vector enters as the row of its own token, and
    the blocks move it until it points along the row of the token that should come next. What the model
    knows of a word thus serves when the word is read and when it is written.

    As output directions rows must be short, about 1 long: the last norm makes vectors about sqrt(D) long, so that
    longer rows would make huge logits. As inputs, rows of length 1 would be too short. A block reads a vector that its
    norm has made about sqrt(D) long; if the block's matrices keep lengths, it adds a vector of that length, beside
    which a row of length 1 would be lost. Hence the factor sqrt(D): 45.25 for the 2048 channels of Gemma 2B, 48 for the
    2304 of Gemma 2 2B.

    Image tokens get no such factor: the projector learned to give them their length. Older versions of Hugging Face
    (before its pull request 44432) divide the image by the factor first and then multiply everything: the same numbers,
    often misread.
    """
    vector_BTD = p.embedding[ids_BT]
    text_BTD = vector_BTD * math.sqrt(p.embedding.shape[1])
    return text_BTD


def run_blocks(x_BTD, prefix_BS, valid_BS, p, config, cache=None):
    """Run all blocks and the final norm.

    Parameters
    ----------
    x_BTD : array
        Image tokens and embedded text, in order; with a cache, the new ones only.
    prefix_BS : bool array
        Tokens of the prefix among all so far, those in the cache included.
    valid_BS : bool array
        Tokens that are not padding, likewise.
    p : Gemma2TextParams
    config : Gemma2Config
    cache : KVCache, optional
        Holds the past tokens; extended by these.

    Returns
    -------
    final_BTD : array
        Ready for `unembed`.
    """
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

    The norm after attention, and that after the MLP, bounds what is added to the residual stream, however large the
    output before the norm has grown.

    Parameters
    ----------
    x_BTD : array
    angle_BTh : float64 array
        Radians, from `npgemma.rope.angles`.
    mask_BTS : bool array
        From `npgemma.mask.prefix_lm` or `npgemma.mask.sliding_window`.
    p : Gemma2BlockParams
    config : Gemma2Config
    cache : LayerCache, optional

    Returns
    -------
    out_BTD : array
    """
    normed_BTD = rms_norm(x_BTD, p.attn_norm, config.epsilon)
    attn_out_BTD = grouped_query_attention(normed_BTD, angle_BTh, mask_BTS, p.attn, config, cache)
    mid_BTD = x_BTD + rms_norm(attn_out_BTD, p.attn_out_norm, config.epsilon)
    mlp_out_BTD = geglu(rms_norm(mid_BTD, p.mlp_norm, config.epsilon), p.mlp)
    out_BTD = mid_BTD + rms_norm(mlp_out_BTD, p.mlp_out_norm, config.epsilon)
    return out_BTD


def grouped_query_attention(x_BTD, angle_BTh, mask_BTS, p, config, cache=None):
    """Self-attention: every token gathers values from the tokens that its mask allows.

    Parameters
    ----------
    x_BTD : array
        Normalised residual stream.
    angle_BTh, mask_BTS : arrays
        As for `block`.
    p : AttentionParams
    config : Gemma2Config
    cache : LayerCache, optional

    Returns
    -------
    out_BTD : array

    Notes
    -----
    Keys are cached after their rotation: a token's position never changes.
    """
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

    Parameters
    ----------
    q_BTNH, k_BSKH, v_BSKH, mask_BTS : arrays
        As for `npgemma.attention.attend`.
    config : Gemma2Config

    Returns
    -------
    mixed_BTNH : array
        For each query head the weighted mean of the values.

    Notes
    -----
    The cap comes before the mask: after it, a masked score of -inf would become -50, and be seen.
    """
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / math.sqrt(config.query_pre_attn_scalar)
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    capped_BKGTS = soft_cap(score_BKGTS, config.attention_softcap)
    masked_BKGTS = torch.where(mask_BTS[:, None, None], capped_BKGTS, -math.inf)
    weight_BKGTS = softmax(masked_BKGTS)
    mixed_BTKGH = einsum("BKGTS,BSKH->BTKGH", weight_BKGTS, v_BSKH)
    mixed_BTNH = mixed_BTKGH.reshape(B, T, N, H)
    return mixed_BTNH


def geglu(x_BTD, p):
    """Gated MLP: transform each token by itself, ``(gelu(x @ gate) * (x @ up)) @ down``.

    Parameters
    ----------
    x_BTD : array
        Normalised residual stream.
    p : MLPParams

    Returns
    -------
    out_BTD : array

    Notes
    -----
    Attention only averages values, which is linear in them; the MLP is where a token's features are combined into new
    ones. A column of ``up`` computes a feature; the same column of ``gate``, through GELU, is a number by which that
    feature is multiplied: near zero where what the gate looks for is absent, large where it is there. So one hidden
    channel can say "this, if that", a product of two features; a plain MLP, which adds features up before its bend,
    needs several channels to come near a product.

    References
    ----------
    Shazeer, arXiv 2002.05202, equation 6 (``FFN_GEGLU``; W is our gate, V our up, W2 our down).
    """
    gate_BTF = gelu(einsum("BTD,DF->BTF", x_BTD, p.gate))
    hidden_BTF = gate_BTF * einsum("BTD,DF->BTF", x_BTD, p.up)
    out_BTD = einsum("BTF,FD->BTD", hidden_BTF, p.down)
    return out_BTD


def unembed(final_BTD, p, config):
    """Return the logit of every vocabulary row as the next token: its soft-capped product with the embedding table.

    The cap keeps the order of logits, but for those so far beyond it that tanh rounds to 1: greedy answers need no cap;
    probabilities, and what is sampled, do.

    Parameters
    ----------
    final_BTD : array
        From `run_blocks`.
    p : Gemma2TextParams
    config : Gemma2Config

    Returns
    -------
    logit_BTV : array
        Unnormalised log-probabilities. The hub's table ends in rows that belong to no token (PaliGemma: 257152 and
        up); their logits are noise; `npgemma.machinery.model.Model.chooser` cuts them off.
    """
    logit_BTV = soft_cap(einsum("BTD,VD->BTV", final_BTD, p.embedding), config.final_softcap)
    return logit_BTV
