"""From logits to an answer: read the image and the prompt once, then add one token at a time.

The model gives every token of the vocabulary a logit, and a softmax makes probabilities of them; which token is written
is decided here. Taking the most probable token each time (greedy) gives the same answer every time, and suits questions
with one right answer: a box, a number. A draw by probability varies, as captions may.

*Next:* ``gemma2.py``. *Skip on a first reading:* `sample`.
"""

import numpy as np

from npgemma import paligemma
from npgemma.ops import softmax


def generate(image_BPD, ids_BT, valid_BT, p, config, choose, max_new_tokens, make_cache, step):
    """Yield the answer's tokens, one for each row at a time.

    Parameters
    ----------
    image_BPD : array
        From `npgemma.paligemma.encode_image`: the image is encoded once for the whole answer.
    ids_BT : int array
        ``<bos>``, prompt, newline; shorter rows padded on the left.
    valid_BT : bool array
        Text tokens that are not padding.
    p : Params
    config : Config
    choose : callable
        Takes ``logit_BV`` and returns ``id_B``: `greedy`, or `sample` with its settings bound. It must pass over rows
        of the vocabulary that belong to no token; `npgemma.machinery.model.Model.chooser` makes one that does.
    max_new_tokens : int
        The most tokens to add; fewer if the context ends before, none if the prompt fills it.
    make_cache, step : callable
        `npgemma.cache.KVCache` and `npgemma.paligemma.step`, or others that do the same.

    Yields
    ------
    id_B : int array
        The newest token of each answer. An answer's last token is an end token (``config.eos_tokens``), unless
        ``max_new_tokens`` or the context ends it first; one that has ended goes on with ``<pad>`` while others still
        run.
    """
    prompt_tokens = image_BPD.shape[1] + ids_BT.shape[1]
    most = min(max_new_tokens, config.text.context_length - prompt_tokens)
    if most < 1:
        return
    # The last token is never fed back, so it needs no place.
    cache = make_cache(config.text, len(ids_BT), prompt_tokens + most - 1, image_BPD)
    valid_BS = paligemma.with_image(valid_BT, image_BPD)
    running_B = np.ones(len(ids_BT), dtype=bool)
    logit_BV = paligemma.prefill(image_BPD, ids_BT, valid_BT, p, config, cache)
    for remaining in range(most, 0, -1):
        id_B = np.where(running_B, choose(logit_BV), config.pad_token)
        yield id_B
        for eos_token in config.eos_tokens:
            running_B = running_B & (id_B != eos_token)
        if remaining == 1 or not running_B.any():
            return
        valid_BS = np.concatenate([valid_BS, running_B[:, None]], axis=1)
        logit_BV = step(id_B[:, None], valid_BS, p, config, cache)


def greedy(logit_BV):
    """Choose the most probable token; of several, the one with the lowest id.

    Parameters
    ----------
    logit_BV : array

    Returns
    -------
    id_B : int array
    """
    return logit_BV.argmax(axis=-1)


def sample(logit_BV, uniform_B, temperature=1.0, top_k=None, top_p=1.0):
    """Draw a token by its probability, with the improbable ones left out.

    The settings apply in this order, as in Hugging Face's ``generate``: temperature, top-k, top-p (of the probabilities
    that top-k has left).

    Parameters
    ----------
    logit_BV : array
    uniform_B : float64 array
        One random number from [0, 1) for each row; it alone decides the draw.
    temperature : float
        Above 0; the logits are divided by it. Below 1 the probable tokens gain, above 1 they lose
        (`npgemma.ops.softmax` shows numbers).
    top_k : int, optional
        Keep only that many of the most probable tokens.
    top_p : float
        In (0, 1]. Keep the fewest most probable tokens that together reach this probability.

    Returns
    -------
    id_B : int array

    Notes
    -----
    Why cut off: hundreds of thousands of tokens are improbable, each by itself, but together they are drawn
    now and then, and one is enough to derail an answer. Top-k keeps a fixed number of tokens; top-p keeps few where the
    model is sure and many where it is not.

    The draw itself inverts the cumulative distribution: the kept probabilities are laid end to end on a line, and the
    token is the one on whose piece the random number falls. Pieces are as long as their tokens are probable.

    References
    ----------
    Holtzman et al., arXiv 1904.09751, section 3.1 (top-p, there nucleus sampling; their V^(p) keeps the token that
    crosses p, and so does this).

    Examples
    --------
    Probabilities 0.5, 0.3, 0.15, 0.05. With ``top_p=0.7`` the first two are kept: the first alone
    does not reach 0.7, and the second crosses it. On the line the first has 0.5 of 0.8, so random numbers under 0.625
    draw it:

    >>> import numpy as np
    >>> logit_BV = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    >>> [int(sample(logit_BV, np.array([u]), top_p=0.7)[0]) for u in (0.0, 0.62, 0.63, 0.99)]
    [0, 0, 1, 1]
    >>> [int(sample(logit_BV, np.array([u]), top_k=3)[0]) for u in (0.0, 0.62, 0.99)]
    [0, 1, 2]
    """
    # R is the rank of a token, from the most probable down: all V of them, or top_k.
    order_BR = np.argsort(-logit_BV, axis=-1, kind="stable")[:, :top_k]
    # float64: sums over a large vocabulary decide here.
    sorted_BR = np.take_along_axis(logit_BV, order_BR, axis=-1).astype(np.float64)
    probability_BR = softmax((sorted_BR - sorted_BR[:, :1]) / temperature)
    before_BR = probability_BR.cumsum(axis=-1) - probability_BR
    kept_BR = np.where(before_BR < top_p, probability_BR, 0.0)
    total_BR = kept_BR.cumsum(axis=-1)
    # How many pieces of the line end before the random number: the rank of the token drawn.
    index = (total_BR <= uniform_B[:, None] * total_BR[:, -1:]).sum(axis=-1, keepdims=True)
    return np.take_along_axis(order_BR, index, axis=-1)[:, 0]
