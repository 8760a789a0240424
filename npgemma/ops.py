"""The operations that torch has as primitives, spelt out in a few lines each; the layers only compose them.

What makes them fast stands in ``fast/``: large arrays are taken in pieces, on all cores (`in_pieces`), and products in
blocks (`fast_product`). Readers may skip that room.
"""

import math

import numpy as np

from npgemma.fast.products import fast_product
from npgemma.fast.threads import in_pieces

# `npgemma.record` does not follow this file: its functions take arrays of any axes.
RECORDED = False


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

    Examples
    --------
    Two tokens of two channels, and a weight that swaps the channels:

    >>> einsum("TD,DF->TF", np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 1.0], [1.0, 0.0]]))
    array([[2., 1.],
           [4., 3.]])
    """
    # The definition is the second line. The first gives the same numbers sooner: npgemma/fast/, which readers may skip.
    product = fast_product(formula, *operands)
    return np.einsum(formula, *operands, optimize=True) if product is None else product


@in_pieces
def softmax(x):
    """Softmax: map scores to positive weights that sum to one along the last axis: ``exp(x) / sum(exp(x))``.

    Subtracting the maximum first changes nothing in the result and keeps ``exp`` from overflowing.

    Parameters
    ----------
    x : array (..., S)
        Scores; ``-inf`` gives a weight of exactly zero. At least one score in a row must be finite.

    Returns
    -------
    array (..., S)
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


@in_pieces
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
    The exact form, with the error function, moves the embedded model's logits by up to 7e-3: close enough to look
    right and wrong all the same. Hugging Face's older configurations say ``gelu`` for Gemma and mean this one.

    References
    ----------
    Hendrycks and Gimpel, arXiv 1606.08415, section 2.
    """
    # x * x * x and not x ** 3: NumPy's power takes the general, far slower road.
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1 + np.tanh(inner))


@in_pieces
def soft_cap(x, cap):
    """Soft-cap: keep numbers between -cap and cap, and small ones almost as they are: ``cap * tanh(x / cap)``.

    Gemma 2 caps scores and logits so. A score that grows without bound turns the softmax into a hard choice, which no
    longer learns; a hard limit would stop learning as well, while tanh keeps the order of the scores and a slope.

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
    >>> soft_cap(np.array([1.0, 10.0, 50.0, 1000.0]), 50.0).round(2)
    array([ 1.  ,  9.87, 38.08, 50.  ])

    References
    ----------
    Gemma Team, arXiv 2408.00118, section 2 (logit soft-capping).
    """
    return cap * np.tanh(x / cap)


@in_pieces
def layer_norm(x, p, epsilon):
    """Shift and scale every token to mean 0 and variance 1, then apply a learned scale and bias.

    ``(x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias``, over the last axis.

    Parameters
    ----------
    x : array (..., D)
    p : LayerNormParams
    epsilon : float
        1e-6 in SigLIP; torch's own default, 1e-5, is a common porting error.

    Returns
    -------
    array (..., D)

    References
    ----------
    Ba, Kiros and Hinton, arXiv 1607.06450, equation 3.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * p.scale + p.bias


@in_pieces
def rms_norm(x, scale, epsilon):
    """Scale every token to a root mean square of 1, then by a learned factor that is stored around zero.

    ``x / sqrt(mean(x^2) + epsilon) * (1 + scale)``, over the last axis.

    Parameters
    ----------
    x : array (..., D)
    scale : array (D,)
        Stored as the difference from 1: a freshly initialised Gemma holds zeros here.
    epsilon : float
        1e-6 in Gemma.

    Returns
    -------
    array (..., D)

    Notes
    -----
    The paper multiplies by its gain ``g``; Gemma stores ``g - 1``. Taking what is stored for ``g`` itself is a common
    porting error.

    References
    ----------
    Zhang and Sennrich, arXiv 1910.07467, equation 4; ``big_vision/models/ppp/gemma.py``, ``RMSNorm``.
    """
    mean_square = (x * x).mean(axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + epsilon) * (1 + scale)


def convolve(x, p):
    """Convolution with zero padding, so that the grid keeps its size.

    Parameters
    ----------
    x : array (B, Y, X, C)
    p : ConvolutionParams
        Kernel (C, y, x, O), y and x odd.

    Returns
    -------
    array (B, Y, X, O)
    """
    height, width = p.kernel.shape[1:3]
    padded = np.pad(x, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return einsum("BYXCyx,CyxO->BYXO", seen, p.kernel) + p.bias


def convolve_transposed(x, p):
    """Transposed convolution: kernel 4, stride 2, padding 1.

    The transpose of a convolution of stride 2: cell (Y, X) adds its kernel to the four by four cells from
    (2 Y - 1, 2 X - 1) on; where kernels overlap, they add up.

    Parameters
    ----------
    x : array (B, Y, X, C)
    p : ConvolutionParams
        Kernel (C, 4, 4, O).

    Returns
    -------
    array (B, 2 Y, 2 X, O)
    """
    painted = einsum("BYXC,CyxO->BYXyxO", x, p.kernel)
    B, Y, X, rows, columns, channels = painted.shape
    # One cell more on each side, for what is painted over the border.
    canvas = np.zeros((B, 2 * Y + 2, 2 * X + 2, channels), dtype=painted.dtype)
    for row in range(rows):
        for column in range(columns):
            canvas[:, row : row + 2 * Y : 2, column : column + 2 * X : 2] += painted[:, :, :, row, column]
    return canvas[:, 1:-1, 1:-1] + p.bias
