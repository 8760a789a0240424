"""The twin of ``npgemma/mask.py``, which explains what both do."""

import torch


def prefix_lm(prefix_BS, valid_BS, new):
    """Return the mask of a prefix language model (prefix-LM): which tokens each of the newest tokens may attend to."""
    total = valid_BS.shape[1]
    key_S = torch.arange(total, device=valid_BS.device)
    query_T = key_S[total - new :]
    causal_TS = key_S <= query_T[:, None]
    both_prefix_BTS = prefix_BS[:, total - new :, None] & prefix_BS[:, None, :]
    mask_BTS = valid_BS[:, None, :] & (causal_TS | both_prefix_BTS)
    return mask_BTS


def sliding_window(prefix_BS, valid_BS, new, window):
    """Return the mask of Gemma 2's blocks with a sliding window: outside the prefix, only the last tokens are seen."""
    total = valid_BS.shape[1]
    position_BS = positions(valid_BS, total)
    distance_BTS = position_BS[:, total - new :, None] - position_BS[:, None, :]
    both_prefix_BTS = prefix_BS[:, total - new :, None] & prefix_BS[:, None, :]
    mask_BTS = prefix_lm(prefix_BS, valid_BS, new) & ((distance_BTS < window) | both_prefix_BTS)
    return mask_BTS


def positions(valid_BS, new):
    """Return the position of each of the newest tokens: the number of real tokens before that token."""
    position_BS = torch.clamp(torch.cumsum(valid_BS, dim=1) - 1, min=0)
    position_BT = position_BS[:, valid_BS.shape[1] - new :]
    return position_BT
