"""Attention for a block of queries at a time: ``npgemma/fast/blocks.py`` says why.

On the CPU only, where a block's scores fit the caches. All of torch's threads do one block together, and then the next.
"""

import functools

import torch

from npgemma.fast.blocks import cut, taken_whole

# Queries of a block, of all heads in it. Of fewer, the keys would be rearranged for too few products; of more, the
# scores would not fit the caches. Attention of the 3B model in bfloat16 on two cores, whole and in blocks: the vision
# tower, 1024 tokens, 120 and 33 ms, 4096 tokens, 2.8 and 0.8 s; the decoder, 4102 tokens, 1.6 and 0.7 s.
QUERIES = 1024


def in_blocks_of_queries(attend):
    """Let a formula of attention take many queries in blocks.

    Parameters
    ----------
    attend : callable
        ``attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, *others)``, such as `torch_ref.attention.attend`: every query's
        result depends on that query, its mask and all keys and values of its head.

    Returns
    -------
    callable
        The same; results differ by rounding only.
    """

    @functools.wraps(attend)
    def wrapped(q_BTNH, k_BSKH, v_BSKH, mask_BTS=None, *others, **named):
        B, T, N, _ = q_BTNH.shape
        S, K = k_BSKH.shape[1:3]
        # The number first: of a step, which is compiled (`torch_ref.static`), nothing else is asked.
        if B * T * N <= QUERIES or q_BTNH.device.type != "cpu" or taken_whole():
            return attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, *others, **named)
        mixed_BTNH = torch.empty_like(q_BTNH)
        for rows, tokens, heads, shared in cut(B, K, N // K, T, S, QUERIES * S):
            mask = None if mask_BTS is None else mask_BTS.expand(B, T, S)[rows, tokens]
            q, k, v = q_BTNH[rows, tokens, heads], k_BSKH[rows, :, shared], v_BSKH[rows, :, shared]
            mixed_BTNH[rows, tokens, heads] = attend(q, k, v, mask, *others, **named)
        return mixed_BTNH

    return wrapped
