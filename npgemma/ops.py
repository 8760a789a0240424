"""The operations that torch has as primitives, spelt out in a few lines each; the layers only compose them.

What makes them fast stands in ``fast/``: large arrays are taken in pieces, on all cores (`in_pieces`, `elementwise`),
and products in blocks (`fast_product`). Readers may skip that folder.

*Next:* ``attention.py``. *Skip on a first reading:* `soft_cap` and the convolutions, until they are used.
"""

import math

import numpy as np

from npgemma.fast.products import check_axes, fast_product
from npgemma.fast.threads import elementwise, in_pieces


def einsum(formula, *operands):
    """Multiply, then sum over the axes that the result does not have.

    ``einsum("BTD,DF->BTF", x, w)[b, t, f] = sum over d of x[b, t, d] * w[d, f]``: `numpy.einsum`.

    Parameters
    ----------
    formula : str
        Axis letters of every operand, then of the result.
    *operands : arrays
        The second may be a weight held in a narrow dtype.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        If operands do not have the formula's axes, or one letter stands for two sizes.

    Examples
    --------
    Two tokens of two channels, and a weight that swaps the channels:

    >>> import numpy as np
    >>> einsum("TD,DF->TF", np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 1.0], [1.0, 0.0]]))
    array([[2., 1.],
           [4., 3.]])
    """
    check_axes(formula, *[operand.shape for operand in operands])
    # np.einsum is the definition; fast_product (npgemma/fast/, which readers may skip) gives the same numbers sooner.
    product = fast_product(formula, *operands)
    return np.einsum(formula, *operands, optimize=True) if product is None else product


@in_pieces
def softmax(x):
    """Softmax: map numbers to positive weights that sum to one along the last axis: ``exp(x) / sum(exp(x))``.

    Every difference of 1 between two numbers is a factor of e between their weights, so a softmax is a soft form of
    taking the largest. Subtracting the maximum first changes nothing in the result and keeps ``exp`` from overflowing.

    In attention the numbers are called scores. Numbers that become probabilities are called *logits*: one for each
    token of the vocabulary, of which a softmax makes the probabilities of the next token (`npgemma.gemma.unembed`). In
    ``contrastive.py`` a logit is about one pair by itself, and a sigmoid, ``1 / (1 + exp(-x))``, makes a probability of
    it.

    Parameters
    ----------
    x : array (..., S)
        Scores or logits; ``-inf`` gives a weight of exactly zero. At least one score in a row must be finite.

    Returns
    -------
    array (..., S)

    Examples
    --------
    Four logits, divided by a temperature of 1/2, 1 and 2: a low temperature sharpens, a high one flattens.

    >>> import numpy as np
    >>> logits = np.array([2.0, 1.0, 0.0, -1.0])
    >>> np.stack([softmax(logits / temperature) for temperature in (0.5, 1.0, 2.0)]).round(2)
    array([[0.86, 0.12, 0.02, 0.  ],
           [0.64, 0.24, 0.09, 0.03],
           [0.46, 0.28, 0.17, 0.1 ]])
    """
    exponential = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def relu(x):
    """Rectified linear unit: ``max(x, 0)``.

    Parameters
    ----------
    x : array of any shape

    Returns
    -------
    array of the same shape
    """
    return np.maximum(x, 0)


@elementwise
def gelu(x):
    """Gaussian error linear unit, in the tanh form that both towers were trained with.

    ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))``

    Parameters
    ----------
    x : array of any shape

    Returns
    -------
    array of the same shape

    Notes
    -----
    Two matrix products in a row are one matrix product, unless a nonlinear function (an activation function) stands
    between them. ReLU, ``max(x, 0)``, suffices, but makes every negative number 0, -0.01 as well as -10, and with it
    the *gradient* that training goes by: how much the loss, a measure of error, would change with a weight. GELU is
    smooth: numbers near zero pass in part, and only large negative ones are stopped.

    The exact form, with the error function, moves the embedded model's logits by up to 7e-3: close enough to look right
    and wrong all the same. Hugging Face's older configurations say ``gelu`` for Gemma and mean this one.

    References
    ----------
    Hendrycks and Gimpel, arXiv 1606.08415, section 2.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> gelu(np.array([-3.0, -1.0, 0.0, 1.0, 3.0])).round(3)
    array([-0.004, -0.159,  0.   ,  0.841,  2.996])

    This form and the exact one, at 1:

    >>> round(float(gelu(np.array([1.0]))[0]), 5), round(0.5 * (1 + math.erf(1 / math.sqrt(2))), 5)
    (0.84119, 0.84134)
    """
    # x * x * x and not x ** 3: NumPy's power takes the general, far slower road.
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1 + np.tanh(inner))


@elementwise
def soft_cap(x, cap):
    """Soft-cap: keep numbers between -cap and cap, and small ones almost as they are: ``cap * tanh(x / cap)``.

    Gemma 2 caps its scores and logits in this way. A score that grows without bound turns the softmax into a hard
    choice, which no longer learns; a hard limit would stop learning as well. tanh keeps a slope and the order of the
    scores, up to several times the cap, where it is flat too.

    Parameters
    ----------
    x : array of any shape
    cap : float
        50 for Gemma 2's scores, 30 for its logits.

    Returns
    -------
    array of the same shape

    Examples
    --------
    >>> import numpy as np
    >>> soft_cap(np.array([1.0, 10.0, 50.0, 1000.0]), 50.0).round(2)
    array([ 1.  ,  9.87, 38.08, 50.  ])

    References
    ----------
    Gemma Team, arXiv 2408.00118, section 2 (logit soft-capping).
    """
    return cap * np.tanh(x / cap)


@in_pieces
def layer_norm(x, p, epsilon):
    """LayerNorm: shift and scale every token to mean 0 and variance 1, then apply a learned scale and bias.

    ``(x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias``, over the last axis.

    Parameters
    ----------
    x : array (..., D)
    p : LayerNormParams
    epsilon : float
        Keeps the division safe where all channels of a token are alike. 1e-6 in SigLIP; torch's own default, 1e-5, is a
        common porting error.

    Returns
    -------
    array (..., D)

    Notes ----- Every block adds to the vectors of its tokens, so their numbers grow with depth, and differently for
    each token. Attention (``attention.py``, next) takes the softmax of scores, products of two such vectors. Without a
    norm, vectors ten times as long would make scores up to a hundred times as large, and give one token all the weight.
    A softmax that sure is flat: with a weight at 0.9999, changing the scores a little changes hardly anything, and
    training finds no gradient. To GELU, of numbers that large, only the sign matters: it passes those above zero and
    stops the others. Each token is normalised by itself, over its own channels. (Batch normalisation, in training,
    takes its mean over the batch: an image's result then depends on what other images are computed beside it.)

    References
    ----------
    Ba, Kiros and Hinton, arXiv 1607.06450, equation 3.

    Examples
    --------
    The mean of 1, 2, 3, 6 is 3 and the variance 3.5:

    >>> import numpy as np
    >>> from npgemma.params import LayerNormParams
    >>> layer_norm(np.array([[1.0, 2.0, 3.0, 6.0]]), LayerNormParams(np.ones(4), np.zeros(4)), 1e-6).round(3)
    array([[-1.069, -0.535,  0.   ,  1.604]])
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * p.scale + p.bias


@in_pieces
def rms_norm(x, scale, epsilon):
    """RMSNorm: scale every token to a root mean square of 1, then multiply each channel by a learned gain.

    ``x / sqrt(mean(x^2) + epsilon) * (1 + scale)``, over the last axis.

    Parameters
    ----------
    x : array (..., D)
    scale : array (D,)
        What is stored: the gain minus 1, zeros in a Gemma before its training.
    epsilon : float
        1e-6 in Gemma.

    Returns
    -------
    array (..., D)

    Notes
    -----
    A LayerNorm without the mean and the bias. What matters is the vector's length: models were found to learn as well
    when the mean stays, and to calculate it costs time.

    The paper's gain ``g`` is ``1 + scale``; Gemma stores ``g - 1``, so that a scale of zero, where training starts and
    where weight decay (in training, a pull of weights towards zero) leads, is a gain of one: the vector comes out
    sqrt(D) long, however long it was. Taking what is stored for ``g`` itself is a common porting error.

    References
    ----------
    Zhang and Sennrich, arXiv 1910.07467, equation 4; ``big_vision/models/ppp/gemma.py``, ``RMSNorm``.

    Examples
    --------
    The mean square of 1, 2, 3, 6 is 12.5, its root 3.536. A stored scale of 0 leaves the quotient, 1 doubles it:

    >>> import numpy as np
    >>> rms_norm(np.array([[1.0, 2.0, 3.0, 6.0]]), np.array([0.0, 0.0, 0.0, 1.0]), 1e-6).round(3)
    array([[0.283, 0.566, 0.849, 3.394]])
    """
    mean_square = (x * x).mean(axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + epsilon) * (1 + scale)


def convolve(x, p):
    """Convolution with zero padding, so that the grid keeps its size.

    Each cell of the result is a weighted sum of the cells around it, with the same weights (the kernel) everywhere. The
    *stride* is the step from one of these sums to the next: 1 here; with 2 the result would have half the rows and
    columns.

    Parameters
    ----------
    x : array (B, Y, X, C)
    p : ConvolutionParams
        Kernel (C, y, x, O), y and x odd.

    Returns
    -------
    array (B, Y, X, O)

    Examples
    --------
    A kernel that takes the left neighbour from the right one answers where a row of cells changes, and with what sign.
    Beyond the border there are zeros, so that the last cell counts as a change too:

    >>> import numpy as np
    >>> from npgemma.params import ConvolutionParams
    >>> change = ConvolutionParams(kernel=np.array([-1.0, 0.0, 1.0]).reshape(1, 1, 3, 1), bias=np.zeros(1))
    >>> row = np.array([0.0, 0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 5, 1)
    >>> convolve(row, change)[0, 0, :, 0]
    array([ 0.,  1.,  1.,  0., -1.])
    """
    height, width = p.kernel.shape[1:3]
    padded = np.pad(x, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))
    seen_BYXCyx = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return einsum("BYXCyx,CyxO->BYXO", seen_BYXCyx, p.kernel) + p.bias


def convolve_transposed(x, p):
    """Transposed convolution: kernel 4, stride 2, padding 1.

    The transpose of a convolution of stride 2: cell (Y, X) adds its value times the kernel to the four by four cells
    from (2 Y - 1, 2 X - 1) on; where kernels overlap, they add up.

    Parameters
    ----------
    x : array (B, Y, X, C)
    p : ConvolutionParams
        Kernel (C, 4, 4, O).

    Returns
    -------
    array (B, 2 Y, 2 X, O)

    Examples
    --------
    Two cells, 1 and 10, and a kernel of ones: each paints its value on three columns (a fourth lies outside), and on
    the middle two both do.

    >>> import numpy as np
    >>> from npgemma.params import ConvolutionParams
    >>> ones = ConvolutionParams(kernel=np.ones((1, 4, 4, 1)), bias=np.zeros(1))
    >>> convolve_transposed(np.array([1.0, 10.0]).reshape(1, 1, 2, 1), ones)[0, :, :, 0]
    array([[ 1., 11., 11., 10.],
           [ 1., 11., 11., 10.]])
    """
    painted = einsum("BYXC,CyxO->BYXyxO", x, p.kernel)
    B, Y, X, rows, columns, channels = painted.shape
    # One cell more on each side, for what is painted over the border.
    canvas = np.zeros((B, 2 * Y + 2, 2 * X + 2, channels), dtype=painted.dtype)
    for row in range(rows):
        for column in range(columns):
            canvas[:, row : row + 2 * Y : 2, column : column + 2 * X : 2] += painted[:, :, :, row, column]
    return canvas[:, 1:-1, 1:-1] + p.bias
