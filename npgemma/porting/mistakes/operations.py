"""Operations that ports take for the model's own."""

import math

import numpy as np

from npgemma.porting.mistakes.injection import library_of

_erf = np.vectorize(math.erf, otypes=[np.float64])


def exact_gelu(x):
    """Gaussian error linear unit in its exact form, of either backend: ``x / 2 * (1 + erf(x / sqrt(2)))``.

    Examples
    --------
    >>> import numpy as np
    >>> exact_gelu(np.array([-1.0, 0.0, 1.0])).round(5)
    array([-0.15866,  0.     ,  0.84134])
    """
    if hasattr(x, "detach"):
        return library_of(x).nn.functional.gelu(x)
    return (x * 0.5 * (1 + _erf(x / math.sqrt(2)))).astype(x.dtype)


def quick_gelu(x):
    """Gaussian error linear unit in its sigmoid form, of either backend: ``x / (1 + exp(-1.702 x))``.

    Examples
    --------
    >>> import numpy as np
    >>> quick_gelu(np.array([-1.0, 0.0, 1.0])).round(5)
    array([-0.1542,  0.    ,  0.8458])
    """
    return x / (1 + library_of(x).exp(-1.702 * x))


def silu(x):
    """Sigmoid linear unit, of either backend: ``x / (1 + exp(-x))``.

    Examples
    --------
    >>> import numpy as np
    >>> silu(np.array([-1.0, 0.0, 1.0])).round(5)
    array([-0.26894,  0.     ,  0.73106])
    """
    return x / (1 + library_of(x).exp(-x))
