"""SigLIP's loss backwards, from which the vision tower learned.

*Next:* ``backward/projector.py``.
"""

import numpy as np


def sigmoid_loss_backward(dloss, image_BD, text_BD, scale, bias):
    """Return the gradients of the vectors of images and captions, of the scale and of the bias.

    Every pair has a loss of its own, ``-log sigmoid(z * logit)``, whose slope is ``-z * sigmoid(-z * logit)``: the
    probability of being wrong, with the sign that lowers it. A pair that is surely right teaches nothing.
    """
    product_BB = image_BD @ text_BD.T
    label_BB = 2 * np.eye(len(image_BD), dtype=image_BD.dtype) - 1
    # sigmoid(-x) = exp(-log(1 + exp(x))), written so that exp never overflows.
    wrong_BB = np.exp(-np.logaddexp(0, label_BB * (scale * product_BB + bias)))
    dlogit_BB = dloss * -label_BB * wrong_BB / len(image_BD)
    dimage_BD, dtext_BD = scale * (dlogit_BB @ text_BD), scale * (dlogit_BB.T @ image_BD)
    return dimage_BD, dtext_BD, (dlogit_BB * product_BB).sum(), dlogit_BB.sum()
