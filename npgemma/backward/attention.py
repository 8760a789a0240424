"""Attention backwards.

*Next:* ``backward/rope.py``.
"""

import math

import numpy as np

from npgemma.backward.ops import einsum_backward, softmax_backward
from npgemma.ops import einsum, softmax


def attend_backward(dmixed_BTNH, q_BTNH, k_BSKH, v_BSKH, mask_BTS=None):
    """Return the gradients of queries, keys and values: two products and a softmax, from the last to the first.

    A key or value is used by every query, and by the G query heads that share it. Each use has a say in what it should
    become, and their gradients add up: T and G are among the letters that the two formulas sum. The mask needs nothing:
    a masked score has a weight of exactly 0, so its value gets no gradient from this query, and the softmax gives the
    score none. What is added to all keys adds one number to all scores of a query, which no softmax sees; so SigLIP's
    bias of the keys has no gradient, but for rounding. A query has the weight 1/2 on each of two keys, of values 10 and
    30; the loss is their mean, 20. A higher second score would move weight from 10 to 30, with a slope of 1/2 * (30 -
    20).

    >>> import numpy as np
    >>> q, k, v = np.ones((1, 1, 1, 1)), np.ones((1, 2, 1, 1)), np.array([10.0, 30.0]).reshape(1, 2, 1, 1)
    >>> [gradient.ravel().tolist() for gradient in attend_backward(q, q, k, v)]
    [[0.0], [-5.0, 5.0], [0.5, 0.5]]
    """
    (B, T, N, H), K = q_BTNH.shape, k_BSKH.shape[2]
    # Once more what the forward pass did.
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) / math.sqrt(H)
    score_BKGTS = einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    masked_BKGTS = score_BKGTS if mask_BTS is None else np.where(mask_BTS[:, None, None], score_BKGTS, -math.inf)
    # Backwards, from its last line to its first.
    dmixed_BTKGH = dmixed_BTNH.reshape(B, T, K, N // K, H)
    dweight_BKGTS, dv_BSKH = einsum_backward(dmixed_BTKGH, "BKGTS,BSKH->BTKGH", softmax(masked_BKGTS), v_BSKH)
    dscore_BKGTS = softmax_backward(dweight_BKGTS, masked_BKGTS)
    dq_BTKGH, dk_BSKH = einsum_backward(dscore_BKGTS, "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH)
    dq_BTNH = dq_BTKGH.reshape(B, T, N, H) / math.sqrt(H)
    return dq_BTNH, dk_BSKH, dv_BSKH
