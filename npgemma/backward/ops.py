"""The operations of ``npgemma/ops.py`` backwards; and what a gradient is.

The *gradient* of an array, of an activation as of a weight, is an array of the same shape. Each entry says how much the
loss grows for each 1 that this entry of the array grows, as long as the step is small and all else stays: the slope of
the loss in that entry (its partial derivative). Training moves every weight a little against its gradient, and so the
loss falls. One rule finds all gradients, the *chain rule*: of y = f(x), a change of x[i] changes every y[j] that
depends on it, and each of these changes the loss; with dx for the gradient of x, and dy for that of y::

    dx[i] = sum over j of dy[j] * (slope of y[j] in x[i])

So gradients are found from the last function to the first: that of the loss in itself is 1, and each function here
makes the gradients of what went in from the gradient of what came out (``npgemma/backward/__init__.py`` has the
contract). What is used several times gets a gradient from each use, and they add up: that is the sum.

*Next:* ``backward/loss.py``. *Skip on a first reading:* `soft_cap_backward`, until ``backward/gemma2.py``.
"""

import math

import numpy as np

from npgemma.ops import einsum, softmax
from npgemma.params import LayerNormParams


def einsum_backward(dout, formula, x, weight):
    """Product backwards: the gradient of each factor is a product of ``dout`` with the other factor.

    ``out = x * weight`` has the slope ``weight`` in x, and x in ``weight``. In the formula the result's letters take
    the place of the factor whose gradient is wanted, and that factor's stand behind the arrow: ``"TD,DF->TF"`` becomes
    ``"TF,DF->TD"`` and ``"TD,TF->DF"``. Letters that the factor does not have are summed. Of matrices, ``dx = dout @
    weight.T`` and ``dweight = x.T @ dout``, which sums over the tokens that share the weight:

    >>> import numpy as np
    >>> x_TD, weight_DF = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0], [6.0]])
    >>> dx_TD, dweight_DF = einsum_backward(np.array([[1.0], [10.0]]), "TD,DF->TF", x_TD, weight_DF)
    >>> dx_TD.tolist(), dweight_DF.ravel().tolist()
    ([[5.0, 6.0], [50.0, 60.0]], [31.0, 42.0])
    """
    first, second, result = formula.replace("->", ",").split(",")
    dx = einsum(f"{result},{second}->{first}", dout, weight)
    dweight = einsum(f"{first},{result}->{second}", x, dout)
    return dx, dweight


def sum_over_uses(dout, weight):
    """Bias backwards: sum over the axes that the weight does not have, since each of their places uses it once."""
    return dout.sum(axis=tuple(range(dout.ndim - weight.ndim)))


def softmax_backward(dout, x):
    """Softmax backwards: ``dx = y * (dout - mean)``, where y is the softmax and the mean is weighted by y.

    Raising x[i] by a little raises y[i] by y[i] times as much, and lowers all y in proportion, for they sum to one::

        slope of y[j] in x[i]  =  y[j] * (1 if i is j else 0)  -  y[j] * y[i]
        dx[i]  =  sum over j of dout[j] * slope  =  y[i] * (dout[i] - sum over j of dout[j] * y[j])

    Weight that goes to one place is taken from the others. Where y is zero, as behind a mask, dx is zero:

    >>> import numpy as np
    >>> softmax_backward(np.array([[1.0, 0.0, 7.0]]), np.array([[2.0, 2.0, -np.inf]]))
    array([[ 0.25, -0.25,  0.  ]])
    """
    y = softmax(x)
    return y * (dout - (dout * y).sum(axis=-1, keepdims=True))


def gelu_backward(dout, x):
    """GELU backwards: of the product of ``x / 2`` and ``1 + tanh(inner)``, each factor's slope times the other."""
    factor = math.sqrt(2 / math.pi)
    tanh = np.tanh(factor * (x + 0.044715 * (x * x * x)))
    slope_of_inner = factor * (1 + 3 * 0.044715 * (x * x))  # that of tanh is 1 - tanh^2
    return dout * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * slope_of_inner)


def soft_cap_backward(dout, x, cap):
    """Soft-cap backwards: ``dout * (1 - tanh(x / cap)^2)``; far beyond the cap nothing is learned."""
    tanh = np.tanh(x / cap)
    return dout * (1 - tanh * tanh)


def layer_norm_backward(dout, x, p, epsilon):
    """LayerNorm backwards: the result depends on no mean and no length of x, so dx has no mean and no part along
    ``unit``, which is x normalised (`rms_norm_backward`).
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + epsilon)
    unit = centred / deviation
    dunit = dout * p.scale
    dx = (dunit - dunit.mean(axis=-1, keepdims=True) - unit * (dunit * unit).mean(axis=-1, keepdims=True)) / deviation
    return dx, LayerNormParams(scale=sum_over_uses(dout * unit, p.scale), bias=sum_over_uses(dout, p.bias))


def rms_norm_backward(dout, x, scale, epsilon):
    """RMSNorm backwards: ``dx = (dunit - unit * mean(dunit * unit)) / length``, with ``dunit = dout * (1 + scale)``.

    ``unit = x / length``, and the slope of ``length`` in x[i] is ``unit[i] / D``. So the slope of unit[j] in x[i] is
    ``((1 if i is j else 0) - unit[j] * unit[i] / D) / length``, and the sum over j is the formula. Making x longer
    changes nothing in the result (but for epsilon), so the loss has no slope along x: that part is subtracted.

    >>> import numpy as np
    >>> x = np.array([[3.0, 4.0]])
    >>> dx, dscale = rms_norm_backward(np.array([[1.0, 0.0]]), x, np.zeros(2), 0.0)
    >>> dx.round(3), float((dx * x).sum().round(9))  # at right angles on x
    (array([[ 0.181, -0.136]]), 0.0)
    """
    length = np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon)
    unit = x / length
    dunit = dout * (1 + scale)
    dx = (dunit - unit * (dunit * unit).mean(axis=-1, keepdims=True)) / length
    return dx, sum_over_uses(dout * unit, scale)
