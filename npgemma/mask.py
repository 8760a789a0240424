"""Who may look at whom: the prefix-LM mask, and the positions that go with it."""

import numpy as np


def prefix_lm(prefix_BS, valid_BS, new):
    """Return the prefix-LM mask: which tokens each of the newest tokens may attend to.

    A query sees a key if the key is a real token and either comes no later, or both belong to the prefix::

                                       keys
                               0  1  2  3  4  5
        queries    0 image     1  1  1  .  .  .
                   1 image     1  1  1  .  .  .
                   2 prompt    1  1  1  .  .  .
                   3 answer    1  1  1  1  .  .
                   4 answer    1  1  1  1  1  .
                   5 padding   1  1  1  1  1  .

    Parameters
    ----------
    prefix_BS : bool array
        Tokens of the prefix (image and prompt), among all that can be seen so far.
    valid_BS : bool array
        Real tokens; False marks padding, which no token attends to. Padding may stand anywhere behind the image, and
        sees at least that, so that no row of the softmax is empty; what it computes is never read.
    new : int
        How many of the S tokens are new, at the end: the queries of this call.

    Returns
    -------
    mask_BTS : bool array
        True where query t may see key s.

    Notes
    -----
    With a causal mask in place of this one answers still read well, and are wrong: the embedded model captions its
    example as before, but asked to detect the red circle it finds nothing, for the image's tokens never see what is
    asked.

    References
    ----------
    Beyer et al., PaliGemma, arXiv 2407.07726, section 3.2.2 and figure 2;
    ``big_vision/models/proj/paligemma/paligemma.py``, ``make_attn_mask``.
    """
    total = valid_BS.shape[1]
    key_S = np.arange(total)
    query_T = key_S[total - new :]
    causal_TS = key_S <= query_T[:, None]
    both_prefix_BTS = prefix_BS[:, total - new :, None] & prefix_BS[:, None, :]
    mask_BTS = valid_BS[:, None, :] & (causal_TS | both_prefix_BTS)
    return mask_BTS


def sliding_window(prefix_BS, valid_BS, new, window):
    """Return the mask of Gemma 2's layers with a sliding window: beyond the prefix, only the last tokens are seen.

    Of what `prefix_lm` allows, a query sees the last ``window`` keys, its own included; inside the prefix nothing is
    taken away. With a window of 2::

                                       keys
                               0  1  2  3  4  5
        queries    0 image     1  1  1  .  .  .
                   1 image     1  1  1  .  .  .
                   2 prompt    1  1  1  .  .  .
                   3 answer    .  .  1  1  .  .
                   4 answer    .  .  .  1  1  .
                   5 answer    .  .  .  .  1  1

    Parameters
    ----------
    prefix_BS, valid_BS, new
        As for `prefix_lm`.
    window : int
        4096 in Gemma 2: with images of up to 448 pixels nothing is out of sight, at 896 the first image tokens are.

    Returns
    -------
    mask_BTS : bool array
        True where query t may see key s.

    Notes
    -----
    Why a window: most of what a token needs stands near it, so half of the layers look no further, and their cost no
    longer grows with the text; the layers between them still see everything. Why none inside the prefix: an image has
    no near and far in reading order, and PaliGemma 2 was trained without any window (big_vision has none); Hugging
    Face, and so this function, keeps Gemma 2's for the answer.

    Tokens are counted by position, so that padding does not push anything out of the window.

    References
    ----------
    Gemma Team, arXiv 2408.00118, section 2 (local sliding window and global attention).
    """
    total = valid_BS.shape[1]
    position_BS = positions(valid_BS, total)
    distance_BTS = position_BS[:, total - new :, None] - position_BS[:, None, :]
    both_prefix_BTS = prefix_BS[:, total - new :, None] & prefix_BS[:, None, :]
    mask_BTS = prefix_lm(prefix_BS, valid_BS, new) & ((distance_BTS < window) | both_prefix_BTS)
    return mask_BTS


def positions(valid_BS, new):
    """Return the position of each of the newest tokens: how many real tokens stand before it.

    Padding takes no position, so a padded row is rotated by the same angles as the same row alone.

    Parameters
    ----------
    valid_BS : bool array
        Real tokens so far.
    new : int
        How many of the S tokens are new, at the end.

    Returns
    -------
    position_BT : int array
        Counted from 0. Padding gets its left neighbour's position (or 0), which nobody sees.
    """
    position_BS = np.maximum(np.cumsum(valid_BS, axis=1) - 1, 0)
    position_BT = position_BS[:, valid_BS.shape[1] - new :]
    return position_BT
