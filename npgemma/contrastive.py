"""What SigLIP was trained with: its sigmoid loss, and CLIP's softmax loss, which it replaced.

Only training calls these. The sigmoid loss gave SigLIP its name (*sig*moid loss for *l*anguage-*i*mage *p*re-training).
In a batch caption b belongs to image b and to no other image. CLIP, an earlier model, lets all captions of the batch
compete for an image, and all images for a caption, while the sigmoid loss judges each pair by itself.

*Next:* ``projector.py``. *Skip on a first reading:* `softmax_loss`.
"""

import numpy as np


def sigmoid_loss(image_BD, text_BD, scale, bias):
    """Ask of every pair of image and caption, by itself: do they belong together?

    ``-sum(log sigmoid(z * (scale * image . text + bias))) / B``, where z is 1 on the diagonal and -1 elsewhere.

    Parameters
    ----------
    image_BD, text_BD : arrays
        Pooled vectors of images and captions, of length 1.
    scale : float
        The paper's t = exp(t'), learned; starts at 10.
    bias : float
        The paper's b, learned; starts at -10, since nearly all pairs are wrong ones.

    Returns
    -------
    scalar
        The loss for one image, summed over the captions.

    Notes
    -----
    The product of two vectors of length 1 lies between -1 and 1. Without a scale the surest yes would be sigmoid(1),
    0.73. Without a bias a pair of product 0, which has nothing in common, would be half a yes; a batch has B - 1 such
    pairs for each right one, and training cannot push all wrong pairs to -1 instead, for three vectors cannot all be
    opposite. (A softmax sees only differences of logits, so it needs no bias.)

    References
    ----------
    Zhai et al., arXiv 2303.15343, section 3.2 and algorithm 1; ``big_vision/trainers/proj/image_text/siglip.py``.

    Examples
    --------
    Two images, and captions that fit them perfectly: the products are 1 on the diagonal and 0 beside it. As they are,
    with a scale of 10, and with a bias too, after which the logits (here one for each pair) are 5 and -5:

    >>> import numpy as np
    >>> perfect_BD = np.eye(2)
    >>> [round(float(sigmoid_loss(perfect_BD, perfect_BD, t, b)), 3) for t, b in ((1, 0), (10, 0), (10, -5))]
    [1.006, 0.693, 0.013]

    By hand, for one image: ``log(1 + e^-1) + log(1 + e^0) = 0.313 + 0.693``. The scale makes the right pair's loss
    vanish and leaves log 2 for the wrong one; the bias takes that away.
    """
    logit_BB = scale * (image_BD @ text_BD.T) + bias
    label_BB = 2 * np.eye(len(image_BD), dtype=image_BD.dtype) - 1
    # log sigmoid(x) = -log(1 + exp(-x)), written so that exp never overflows.
    loss_BB = np.logaddexp(0, -label_BB * logit_BB)
    return loss_BB.sum() / len(image_BD)


def softmax_loss(image_BD, text_BD, scale):
    """Ask of every image: which of the captions is yours? And of every caption: which image? (CLIP's loss.)

    ``-(mean(log softmax over captions) + mean(log softmax over images)) / 2``, both of the diagonal. Each term needs
    the whole batch for its sum, and with it all vectors in one place. Batches of tens of thousands of pairs are spread
    over many machines; the sigmoid loss can be computed pair by pair, wherever the pair is.

    Parameters
    ----------
    image_BD, text_BD : arrays
        Pooled vectors of images and captions, of length 1.
    scale : float
        Inverse temperature, learned; CLIP caps it at 100.

    Returns
    -------
    scalar

    References
    ----------
    Radford et al., arXiv 2103.00020, figure 3; Zhai et al., arXiv 2303.15343, section 3.1.
    """
    logit_BB = scale * (image_BD @ text_BD.T)
    # The logarithm of the sum of exponentials, without overflow.
    caption_B = np.logaddexp.reduce(logit_BB, axis=1) - np.diagonal(logit_BB)
    image_B = np.logaddexp.reduce(logit_BB, axis=0) - np.diagonal(logit_BB)
    return (caption_B.mean() + image_B.mean()) / 2
