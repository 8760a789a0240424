"""The operations that the port spells out, as torch has them.

Docstrings stand in both files, so that each can be read alone; what differs is the lesson. Where the dtype is bfloat16,
norms and softmax still calculate in float32, as Hugging Face's and big_vision's do.
"""

import math

import torch
import torch.nn.functional as F

from npgemma.fast.products import layout


def at_least_float32(x):
    """Return the array in float32 if its dtype is narrower, otherwise as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


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
    """
    found = layout(formula)
    if not found:
        return torch.einsum(formula, *operands)
    # A product with a weight is torch's linear layer, which on the CPU reads the weights faster than its einsum.
    (kept, order), (x, weight) = found, operands
    out_axes = [weight.shape[axis] for axis in order[: weight.ndim - (x.ndim - kept)]]
    weight_NK = weight.permute(order).reshape(math.prod(out_axes), -1)
    return F.linear(x.reshape(*x.shape[:kept], -1), weight_NK).reshape(*x.shape[:kept], *out_axes)


def softmax(x):
    """Softmax: map scores to positive weights that sum to one along the last axis: ``exp(x) / sum(exp(x))``.

    Every difference of 1 between two scores is a factor of e between their weights, so a softmax is a soft form of
    taking the largest. Subtracting the maximum first changes nothing in the result and keeps ``exp`` from overflowing.

    Parameters
    ----------
    x : array (..., S)
        Scores; ``-inf`` gives a weight of exactly zero. At least one score in a row must be finite.

    Returns
    -------
    array (..., S)
    """
    return torch.softmax(x, dim=-1, dtype=at_least_float32(x).dtype).to(x.dtype)


def relu(x):
    """Rectified linear unit: ``max(x, 0)``.

    Parameters
    ----------
    x : array of any shape

    Returns
    -------
    array of the same shape
    """
    return F.relu(x)


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
    Without a bend between them (a nonlinear function, also called activation function) two matrix products would be
    one. ReLU, ``max(x, 0)``, bends too, but stops every negative number dead, -0.01 as well as -10, and with it the
    gradient in training. GELU bends smoothly: numbers near zero pass in part, and only large negative ones are stopped.

    The exact form, with the error function, moves the embedded model's logits by up to 7e-3: close enough to look right
    and wrong all the same. Hugging Face's older configurations say ``gelu`` for Gemma and mean this one.

    References
    ----------
    Hendrycks and Gimpel, arXiv 1606.08415, section 2.
    """
    return F.gelu(x, approximate="tanh")


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

    References
    ----------
    Gemma Team, arXiv 2408.00118, section 2 (logit soft-capping).
    """
    return cap * torch.tanh(x / cap)


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

    Notes
    -----
    Every block adds to the residual stream, so its numbers grow with depth, and differently for each token. Without a
    norm a vector ten times as long would push ten times as hard through every matrix: softmax, GELU and gates would
    work at their ends, where they hardly react and hardly learn. Each token is normalised by itself, over its own
    channels. (Batch normalisation, in training, takes its mean over the batch: an image's result then depends on what
    other images are computed beside it.)

    References
    ----------
    Ba, Kiros and Hinton, arXiv 1607.06450, equation 3.
    """
    return F.layer_norm(x, x.shape[-1:], p.scale, p.bias, epsilon)


def rms_norm(x, scale, epsilon):
    """RMSNorm: scale every token to a root mean square of 1, then by a learned scale that is stored minus 1.

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
    A LayerNorm without the mean and the bias. What matters is the vector's length: models were found to learn as well
    when the mean stays, and to calculate it costs time.

    The paper's gain ``g`` is ``1 + scale``; Gemma stores ``g - 1``, so that a scale of zero, where training starts and
    where weight decay pulls, means "leave the length as it is". Taking what is stored for ``g`` itself is a common
    porting error.

    References
    ----------
    Zhang and Sennrich, arXiv 1910.07467, equation 4; ``big_vision/models/ppp/gemma.py``, ``RMSNorm``.
    """
    wide = at_least_float32(x)
    return F.rms_norm(wide, x.shape[-1:], 1 + scale.to(wide.dtype), epsilon).to(x.dtype)


def convolve(x, p):
    """Convolution with zero padding, so that the grid keeps its size.

    Each cell of the result is a weighted sum of the cells around it, with the same weights (the kernel) everywhere.

    Parameters
    ----------
    x : array (B, Y, X, C)
    p : ConvolutionParams
        Kernel (C, y, x, O), y and x odd.

    Returns
    -------
    array (B, Y, X, O)
    """
    return F.conv2d(x.permute(0, 3, 1, 2), p.kernel.permute(3, 0, 1, 2), p.bias, padding="same").permute(0, 2, 3, 1)


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
    """
    kernel = p.kernel.permute(0, 3, 1, 2)
    return F.conv_transpose2d(x.permute(0, 3, 1, 2), kernel, p.bias, stride=2, padding=1).permute(0, 2, 3, 1)
