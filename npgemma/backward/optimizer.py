"""Optimizers: what a weight becomes, given its gradient.

The gradient says in which direction the loss grows; a step goes the other way. It describes the loss near the present
weights only, and of one batch only. So a step is short, and there are many. How long it is, the *learning rate* says
(here ``rate``): too small and nothing is learned, too large and the loss rises.

*Next:* ``conversion/``. *Skip on a first reading:* `decay_of_recipe`.
"""

import math
from dataclasses import dataclass

import numpy as np

from npgemma.params import Params, declared, leaves, map_leaves


def sgd(p, dp, rate):
    """Stochastic gradient descent (the batch is a random one): ``weight - rate * dweight``, for every weight."""
    return _combined(lambda weight, dweight: weight - rate * dweight, p, dp)


@dataclass(frozen=True)
class Moments:
    """What AdamW keeps for each weight: running means of its gradient (direction), and of the square (size)."""

    mean: Params
    square: Params
    steps: int = 0


def no_moments(p):
    """Return the `Moments` before the first step: zeros."""
    return Moments(map_leaves(np.zeros_like, p), map_leaves(np.zeros_like, p))


def adamw(p, dp, moments, rate, betas=(0.9, 0.999), epsilon=1e-8, decay=None):
    """AdamW: a step of ``rate`` at most, or about, in every weight, however large its gradients; weights and `Moments`.

    ``mean = b1 mean + (1 - b1) g``, ``square = b2 square + (1 - b2) g^2``, and after t steps::

        weight - rate * ((mean / (1 - b1^t)) / (sqrt(square / (1 - b2^t)) + epsilon) + decay * weight)

    Gradients of one weight may be a thousand times those of another; with one rate for all, SGD moves the one too far
    or the other not at all. So the mean of a weight's last gradients (about ten) is divided by their size (of the last
    thousand): if they agree, the quotient is 1; if their signs change from batch to batch, it is near 0, and the weight
    waits. Both means start at zero, too small by just the factor ``1 - b^t``. Kingma and Ba, arXiv 1412.6980, algorithm
    1; Loshchilov and Hutter, arXiv 1711.05101, algorithm 2 (decay apart from the gradient). Two weights, of gradients
    100 and 0.01:

    >>> import numpy as np
    >>> from npgemma.params import LayerNormParams
    >>> p, dp = LayerNormParams(np.ones(1), np.ones(1)), LayerNormParams(np.array([100.0]), np.array([0.01]))
    >>> stepped, _ = adamw(p, dp, no_moments(p), rate=0.1)
    >>> stepped.scale, stepped.bias
    (array([0.9]), array([0.9000001]))
    """
    (b1, b2), t = betas, moments.steps + 1
    mean = _combined(lambda m, g: b1 * m + (1 - b1) * g, moments.mean, dp)
    square = _combined(lambda v, g: b2 * v + (1 - b2) * (g * g), moments.square, dp)
    names = (name for name, _, _ in leaves(p))

    def moved(weight, m, v):
        step = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)
        return weight - rate * (step + (decay or {}).get(next(names), 0.0) * weight)

    return _combined(moved, p, mean, square), Moments(mean, square, t)


def rate_at(step, steps, highest, warmup=0.05):
    """Return the learning rate of a step, from 1 on: it rises evenly at first (warm-up), then falls as half a cosine.

    >>> [round(rate_at(step, 10, 1.0, warmup=0.2), 3) for step in (1, 2, 3, 6, 9, 10)]
    [0.5, 1.0, 0.962, 0.5, 0.038, 0.0]
    """
    rising = max(1, round(warmup * steps))
    if step <= rising:
        return highest * step / rising
    return highest * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def decay_of_recipe(config, decay):
    """Return the decay of each weight that decays in big_vision, by name: matrices of vision tower and projector."""
    found = [leaf.name for leaf in declared(config) if leaf.kind == "weight" and not leaf.name.startswith("text.")]
    return dict.fromkeys(found, decay)


def _combined(function, tree, *others):
    """Return a tree of ``function`` of the arrays that stand at the same place in several trees."""
    rest = zip(*([array for _, _, array in leaves(other)] for other in others))
    return map_leaves(lambda array: function(array, *next(rest)), tree)
