"""Attention: the one operation in which tokens read from each other. Both towers use this formula.

Everything else in a transformer treats each token by itself. In attention, three learned matrices each make a new
vector of a token's vector: a *query*, which says what the token looks for; a *key*, which says what the token can be
found by; and a *value*, which is what the token hands over. The dot product of a query with a key is large where the
two point the same way. A token then takes the mean of all values, weighted by the softmax of these products: tokens
whose keys match its query count, others hardly.

Several *heads* do this side by side, each with queries, keys and values of its own (unless heads share keys and values:
`attend`). One head makes one mean, with the same weights for all its channels: looking at two places at once, it hands
over a blend of two values. Several heads fetch several means and keep them apart, on different channels.

*Next:* ``image.py``.
"""

import math

import numpy as np

from npgemma.fast.blocks import in_blocks_of_queries
from npgemma.ops import einsum, softmax


# Where there are many queries, the formula runs for a block of them at a time (npgemma/fast/, which readers may skip).
@in_blocks_of_queries
def attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS=None):
    """For each query, average the values, weighted by the softmax of query-key similarity.

    ``softmax(q k / sqrt(H)) v`` for each head. There may be fewer key/value heads than query heads (grouped-query
    attention): then G = N / K query heads in a row share one, and a cache holds G times fewer keys and values. What is
    lost is variety: the G heads ask different questions of the same keys.

    Parameters
    ----------
    q_BTNH, k_BSKH, v_BSKH : arrays
        Queries, keys and values; in Gemma the first two are rotated already (`npgemma.rope.rotate`).
    mask_BTS : bool array, optional
        True where query t may read from key s. None lets every query read from every key, as the vision tower does.

    Returns
    -------
    mixed_BTNH : array
        For each query head the weighted mean of the values.

    Notes
    -----
    Why ``/ sqrt(H)``: a dot product of H independent terms of variance 1 has variance H. Undivided, the scores of wide
    heads would lie so far apart that the softmax picks one key before anything is learned; and a softmax that sure is
    flat (`npgemma.ops.layer_norm`), so that the queries could not learn to look elsewhere.

    References
    ----------
    Vaswani et al., arXiv 1706.03762, equation 1; Ainslie et al., arXiv 2305.13245, section 2.2 (grouped queries).

    Examples
    --------
    Two tokens, one head of two channels. Each query matches its own token's key: the scores are 4 / sqrt(2) and 0, and
    their softmax 0.94 and 0.06.

    >>> import math
    >>> import numpy as np
    >>> from npgemma.ops import softmax
    >>> x = np.array([[[[2.0, 0.0]], [[0.0, 2.0]]]])
    >>> values = np.array([[[[10.0, 0.0]], [[0.0, 10.0]]]])
    >>> attend(q_BTNH=x, k_BSKH=x, v_BSKH=values)[0, :, 0].round(2)
    array([[9.44, 0.56],
           [0.56, 9.44]])

    The variance of 10000 dot products of 64 terms, and of the same divided by sqrt(64):

    >>> q, k = np.random.default_rng(0).standard_normal((2, 10000, 64))
    >>> dot = (q * k).sum(axis=-1)
    >>> float(dot.var().round(1)), float((dot / math.sqrt(64)).var().round(2))
    (65.3, 1.02)

    What the softmax makes of four of the products, undivided and divided:

    >>> softmax(np.stack([dot[8:12], dot[8:12] / math.sqrt(64)])).round(2)
    array([[0.  , 1.  , 0.  , 0.  ],
           [0.2 , 0.55, 0.18, 0.07]])
    """
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    # Query head n reads key/value head n // G. Splitting the axis N into (K, G) lines them up: with N = 6 and K = 2,
    # query heads 0, 1, 2 become row 0 and share key/value head 0; query heads 3, 4, 5 become row 1 and share head 1.
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / math.sqrt(H)
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    # (B, 1, 1, T, S) against (B, K, G, T, S): all heads have the same mask. exp(-inf) is 0.
    masked_BKGTS = score_BKGTS if mask_BTS is None else np.where(mask_BTS[:, None, None], score_BKGTS, -math.inf)
    weight_BKGTS = softmax(masked_BKGTS)
    mixed_BTKGH = einsum("BKGTS,BSKH->BTKGH", weight_BKGTS, v_BSKH)
    mixed_BTNH = mixed_BTKGH.reshape(B, T, N, H)
    return mixed_BTNH
