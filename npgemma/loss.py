"""What PaliGemma as a whole learned from: training changes all weights so that the loss of right answers falls.

*Next:* ``backward/ops.py``.
"""

import numpy as np


def next_token_loss(logit_BTV, id_BT, answer_BT):
    """Cross-entropy of the answer's tokens: how surprised is the model by each, given all tokens before it?

    ``-mean(log softmax(logit[t - 1])[id[t]])`` over the tokens t of the answer: 0 if the model gives every right token
    all of the probability, and larger the less it gives.

    Parameters
    ----------
    logit_BTV : array
        Of the text tokens, in one pass: position t - 1 predicts token t. The P image positions that
        `npgemma.paligemma.logits` puts in front are left out.
    id_BT : int array
        The same tokens.
    answer_BT : bool array
        Tokens that count: the answer with its ``<eos>``. Tokens of image and prompt see their successors, and could
        copy them instead of predicting; and the model is to answer questions, not to ask them.

    Returns
    -------
    scalar

    References
    ----------
    Beyer et al., arXiv 2407.07726, section 3.2.2 (only the answer, there called suffix, has a loss).

    Examples
    --------
    Two tokens, of which the second counts. The model gave it 3/4, and -log(3/4) is 0.288:

    >>> import numpy as np
    >>> logit_BTV = np.log([[[0.25, 0.75], [0.5, 0.5]]])
    >>> round(float(next_token_loss(logit_BTV, np.array([[0, 1]]), np.array([[False, True]]))), 3)
    0.288
    """
    before = logit_BTV[:, :-1]
    # What is subtracted cancels out, and keeps exp from overflowing.
    shifted = before - before.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, id_BT[:, 1:, None], axis=-1)[..., 0]
    loss = np.log(np.exp(shifted).sum(axis=-1)) - chosen
    return loss[answer_BT[:, 1:]].mean()
