"""Which token may attend to which: the prefix-LM mask, and the positions that go with it.

Image and prompt are given: no token of them has to be predicted, so all of them may read from each other in both
directions. An image token then knows what the prompt asks for before the decoder has said a word. The answer is
different. Each of its tokens is predicted from what stands before it (as in any *language model*, LM), and in training
the whole answer is there at once: a token that could read from later ones would only have to copy. So in training the
answer is *causal*: each of its tokens reads from itself and earlier ones only. It must be so here too: otherwise each
new token would change the vectors of those before it, which never happened in training.

*Next:* ``gemma.py``. *Skip on a first reading:* `sliding_window`, until ``gemma2.py``.
"""

import numpy as np


def prefix_lm(prefix_BS, valid_BS, new):
    """Return the mask of a prefix language model (prefix-LM): which tokens each of the newest tokens may attend to.

    A query may attend to a key if the key is a real token and one of two things is true: the key comes no later than
    the query, or both belong to the prefix::

                                     keys
                             0  1  2  3  4  5
        queries  0 image     1  1  .  1  .  .
                 1 image     1  1  .  1  .  .
                 2 padding   1  1  .  .  .  .
                 3 prompt    1  1  .  1  .  .
                 4 answer    1  1  .  1  1  .
                 5 answer    1  1  .  1  1  1

    Parameters
    ----------
    prefix_BS : bool array
        Tokens of the prefix (image and prompt), among all so far.
    valid_BS : bool array
        Real tokens; False marks padding, which only fills up a row and which no token attends to. In a batch shorter
        prompts are padded between image and prompt, so that all prompts end together; an answer that has ended is
        padded on the right while others run on. A padding token attends to the image, so that no row of the softmax is
        empty; what is computed for padding is never read.
    new : int
        How many of the S tokens are new, at the end: the queries of this call.

    Returns
    -------
    mask_BTS : bool array
        True where query t may attend to key s.

    Notes
    -----
    With a causal mask in place of this one the embedded model captions its example as before, but asked to detect the
    red circle it finds nothing. The newline, whose logits begin the answer, still reads all of the prompt and all of
    the image. But the image tokens, which come first, no longer read the prompt, and so cannot say "that is me". Just
    these reads matter for the detection of one object: add them to a causal mask and it is found in 99 % of cases; take
    them from this mask and it is found in 16 % (``docs/overview.md``).

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
    """Return the mask of Gemma 2's blocks with a sliding window: outside the prefix, only the last tokens are seen.

    Of what `prefix_lm` allows, a query sees the last ``window`` keys, its own included; inside the prefix nothing is
    taken away. With a window of 2::

                                     keys
                             0  1  2  3  4  5
        queries  0 image     1  1  1  .  .  .
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
        4096 in Gemma 2. At 448 pixels (1024 image tokens) the window still covers everything during an answer of 3000
        tokens; at 896 (4096 image tokens) the answer's first token already loses part of the image.

    Returns
    -------
    mask_BTS : bool array
        True where query t may see key s.

    Notes
    -----
    Why a window: most of what a token needs stands near it, so half of the layers look no further, and their cost need
    no longer grow with the text; the layers between them still see everything. (Here nothing is saved: the cache keeps
    every token in all layers, and the window is only a mask.) Why none inside the prefix: an image has no near and far
    in reading order, and PaliGemma 2 was trained without any window (big_vision has none); Hugging Face, and so this
    function, keeps Gemma 2's for the answer.

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
    """Return the position of each of the newest tokens: the number of real tokens before that token.

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
        Counted from 0. Padding has its left neighbour's position (or 0); no token reads from it.

    Examples
    --------
    >>> import numpy as np
    >>> positions(np.array([[True, True, False, True, True]]), new=3)
    array([[1, 2, 3]])
    """
    position_BS = np.maximum(np.cumsum(valid_BS, axis=1) - 1, 0)
    position_BT = position_BS[:, valid_BS.shape[1] - new :]
    return position_BT
