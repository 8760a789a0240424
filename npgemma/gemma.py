"""Gemma, the decoder: maps image and text tokens to logits for the next token at each position.

Gemma 2B is the decoder of PaliGemma 3B. Its blocks are built like the vision tower's (a residual stream, a norm before
attention and before the MLP: ``siglip.py``), with RMSNorm, rotary positions, a mask, several query heads for one
key/value head, and a gated MLP; no biases anywhere. The table that embeds a token also turns vectors into logits (the
output head). Official code: ``big_vision/models/ppp/gemma.py`` (variant gemma_2b); paper: Gemma Team, arXiv 2403.08295.

*Next:* ``paligemma.py``.
"""

import math

from npgemma.attention import attend
from npgemma.fast.blocks import in_blocks_of_tokens
from npgemma.mask import positions, prefix_lm
from npgemma.ops import einsum, gelu, rms_norm
from npgemma.rope import angles, rotate


def embed_tokens(ids_BT, p):
    """Look up each text token's vector and scale it by the square root of the width.

    Parameters
    ----------
    ids_BT : int array
        Text tokens, from 0 to V - 1.
    p : TextParams

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
    longer rows would make huge logits. As inputs, rows of length 1 would be too short. In 2048 channels a norm's output
    is about 45 long, and what a block's matrices make of it, and add, is of that order: it drowns a word of length 1,
    but not one of length 45. Hence the factor sqrt(D): 45.25 for the 2048 channels of Gemma 2B, 48 for the 2304 of
    Gemma 2 2B.

    Image tokens get no such factor: the projector learned to give them their length. Older versions of Hugging Face
    (before its pull request 44432) divide the image by the factor first and then multiply everything: the same numbers,
    often misread.

    Examples
    --------
    A vocabulary of three tokens and four channels: the factor is sqrt(4).

    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> table_VD = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])
    >>> embed_tokens(np.array([[2, 0]]), SimpleNamespace(embedding=table_VD))[0]
    array([[0., 0., 2., 2.],
           [2., 0., 0., 0.]])
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
    p : TextParams
    config : TextConfig
    cache : KVCache, optional
        Holds the past tokens; extended by these.

    Returns
    -------
    final_BTD : array
        Ready for `unembed`.

    Notes
    -----
    Why 18 blocks and not one: a block's queries are made of what its tokens knew before it; what this block finds out
    can only be used in the next block's queries. To detect a red circle, image tokens first read in the prompt what is
    wanted, then the newline looks for the tokens that fit: two blocks at least. ``docs/overview.md`` shows what is left
    when only the first blocks run.
    """
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
    """Pre-norm transformer block: residual self-attention, then residual GeGLU MLP.

    ``mid = x + attention(norm(x)); out = mid + mlp(norm(mid))``

    Parameters
    ----------
    x_BTD : array
    angle_BTh : float64 array
        Radians, from `npgemma.rope.angles`.
    mask_BTS : bool array
        From `npgemma.mask.prefix_lm`.
    p : BlockParams
    config : TextConfig
    cache : LayerCache, optional

    Returns
    -------
    out_BTD : array
    """
    normed_BTD = rms_norm(x_BTD, p.attn_norm, config.epsilon)
    attn_out_BTD = grouped_query_attention(normed_BTD, angle_BTh, mask_BTS, p.attn, cache)
    mid_BTD = x_BTD + attn_out_BTD
    mlp_out_BTD = geglu(rms_norm(mid_BTD, p.mlp_norm, config.epsilon), p.mlp)
    out_BTD = mid_BTD + mlp_out_BTD
    return out_BTD


def grouped_query_attention(x_BTD, angle_BTh, mask_BTS, p, cache=None):
    """Self-attention: every token gathers values from the tokens that its mask allows.

    Parameters
    ----------
    x_BTD : array
        Normalised residual stream.
    angle_BTh, mask_BTS : arrays
        As for `block`.
    p : AttentionParams
    cache : LayerCache, optional

    Returns
    -------
    out_BTD : array

    Notes
    -----
    Keys are cached after their rotation: a token's position never changes. The 3B model has one key/value
    head for eight query heads, which makes the cache eight times smaller (`npgemma.cache`). As in the vision tower, the
    matrix ``o`` adds what each head brought, in that head's own directions (`npgemma.siglip.self_attention`).
    """
    q_BTNH = rotate(einsum("BTD,DNH->BTNH", x_BTD, p.q), angle_BTh)
    k_BTKH = rotate(einsum("BTD,DKH->BTKH", x_BTD, p.k), angle_BTh)
    v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, p.v)
    k_BSKH, v_BSKH = (k_BTKH, v_BTKH) if cache is None else cache.extend(k_BTKH, v_BTKH)
    mixed_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS)
    out_BTD = einsum("BTNH,NHD->BTD", mixed_BTNH, p.o)
    return out_BTD


@in_blocks_of_tokens
def geglu(x_BTD, p):
    """Gated MLP (GeGLU, a GELU-gated linear unit): ``(gelu(x @ gate) * (x @ up)) @ down``, for each token by itself.

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
    channel can say "this, if that", a product of two features; a plain MLP, which adds features up before its
    nonlinearity, needs several channels to come near a product.

    References
    ----------
    Shazeer, arXiv 2002.05202, equation 6 (``FFN_GEGLU``; W is our gate, V our up, W2 our down).
    """
    gate_BTF = gelu(einsum("BTD,DF->BTF", x_BTD, p.gate))
    hidden_BTF = gate_BTF * einsum("BTD,DF->BTF", x_BTD, p.up)
    out_BTD = einsum("BTF,FD->BTD", hidden_BTF, p.down)
    return out_BTD


def unembed(final_BTD, p, config):
    """Return the logit of every vocabulary row as the next token: its product with the embedding table.

    Parameters
    ----------
    final_BTD : array
        From `run_blocks`.
    p : TextParams
    config : TextConfig
        Gemma 2 reads its cap there; Gemma reads nothing.

    Returns
    -------
    logit_BTV : array
        Logits: a softmax over V turns them into the probabilities of the next token. The table of the hub's files ends
        in rows that belong to no token (257152 and up); the logits of those rows are noise, and
        `npgemma.machinery.model.Model.chooser` cuts them off.
    """
    logit_BTV = einsum("BTD,VD->BTV", final_BTD, p.embedding)
    return logit_BTV
