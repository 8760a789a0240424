"""The twin of ``npgemma/attention.py``, which explains what both do."""

import math

import torch

from torch_ref.blocks import in_blocks_of_queries
from torch_ref.ops import einsum, softmax


# Where there are many queries, the formula runs for a block of them at a time (blocks.py, which readers may skip).
@in_blocks_of_queries
def attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS=None):
    """For each query, average the values, weighted by the softmax of query-key similarity."""
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    # Query head n reads key/value head n // G. Splitting the axis N into (K, G) lines them up: with N = 6 and K = 2,
    # query heads 0, 1, 2 become row 0 and share key/value head 0; query heads 3, 4, 5 become row 1 and share head 1.
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / math.sqrt(H)
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    # (B, 1, 1, T, S) against (B, K, G, T, S): all heads have the same mask. exp(-inf) is 0.
    masked_BKGTS = score_BKGTS if mask_BTS is None else torch.where(mask_BTS[:, None, None], score_BKGTS, -math.inf)
    weight_BKGTS = softmax(masked_BKGTS)
    mixed_BTKGH = einsum("BKGTS,BSKH->BTKGH", weight_BKGTS, v_BSKH)
    mixed_BTNH = mixed_BTKGH.reshape(B, T, N, H)
    return mixed_BTNH
