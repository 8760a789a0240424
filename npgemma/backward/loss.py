"""The loss of answers backwards: where every gradient begins.

*Next:* ``backward/attention.py``.
"""

import numpy as np

from npgemma.ops import softmax


def next_token_loss_backward(dloss, logit_BTV, id_BT, answer_BT):
    """Return the gradient of the logits: the probability of every token, minus 1 for the right one.

    The loss of one token is ``log(sum of exp(logit)) - logit[right]``. The slope of the first term in a logit is
    ``exp(logit) / sum of exp``, which is its probability p; that of the second is -1 for the right token. So softmax
    and cross-entropy together have a simple slope, ``p - 1`` for the right token and ``p`` for the others: how far the
    model's probabilities are from what happened. It does not vanish where the model is surely wrong, as the slope of
    the softmax alone would. The loss is a mean, so each token of the answer gets its part; what is not answer has no
    gradient. Of two tokens the second counts, and the model gave it 3/4:

    >>> import numpy as np
    >>> logit_BTV = np.log([[[0.25, 0.75], [0.5, 0.5]]])
    >>> next_token_loss_backward(1.0, logit_BTV, np.array([[0, 1]]), np.array([[False, True]])).round(2).tolist()
    [[[0.25, -0.25], [0.0, 0.0]]]
    """
    counts = answer_BT[:, 1:, None]
    right = np.arange(logit_BTV.shape[-1]) == id_BT[:, 1:, None]
    before = (softmax(logit_BTV[:, :-1]) - right) * counts * (dloss / int(counts.sum()))
    dlogit_BTV = np.pad(before, ((0, 0), (0, 1), (0, 0)))
    return dlogit_BTV
