"""Attention: the one formula that both towers use."""

import math

import torch

from torch_ref.ops import einsum, softmax


def attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS=None):
    """For each query, average the values, weighted by the softmax of query-key similarity.

    ``softmax(q k / sqrt(H)) v`` for each head. There may be fewer key/value heads than query heads (grouped-query
    attention): then G = N / K query heads in a row share one.

    Parameters
    ----------
    q_BTNH, k_BSKH, v_BSKH : arrays
        Queries, keys and values; in Gemma the first two are rotated already (`npgemma.rope.rotate`).
    mask_BTS : bool array, optional
        True where query t may see key s. None lets every query see every key, as the vision tower does.

    Returns
    -------
    mixed_BTNH : array
        For each query head the weighted mean of the values.

    References
    ----------
    Vaswani et al., arXiv 1706.03762, equation 1; Ainslie et al., arXiv 2305.13245, section 2.2 (grouped queries).
    """
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    # Query head n reads key/value head n // G: splitting N into (K, G) lines them up.
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / math.sqrt(H)
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    if mask_BTS is not None:
        score_BKGTS = torch.where(mask_BTS[:, None, None], score_BKGTS, -math.inf)
    weight_BKGTS = softmax(score_BKGTS)
    mixed_BTKGH = einsum("BKGTS,BSKH->BTKGH", weight_BKGTS, v_BSKH)
    mixed_BTNH = mixed_BTKGH.reshape(B, T, N, H)
    return mixed_BTNH
