"""What a known mistake is, and how one is made: functions are exchanged for wrong ones meanwhile."""

import sys
from dataclasses import dataclass

import numpy as np

from npgemma.fast.bfloat16 import narrow, widen
from npgemma.probe.exchange import Changes
from npgemma.probe.following import enclosing

DECODERS = ("gemma", "gemma2")


@dataclass(frozen=True)
class Mistake:
    """A known mistake.

    Parameters
    ----------
    id : str
    says : str
        The mistake in one sentence.
    made_by : str
        Who made it, or what leads to it.
    place : str
        Pattern of the first array in a trace that differs; or, for what is no array, where the mistake shows.
    variants : tuple of Changes
        Such as two values of the same epsilon; the first is the usual one.
    unseen : str
        Where the mistake changes nothing, the reason.
    """

    id: str
    says: str
    made_by: str
    place: str
    variants: tuple[Changes, ...]
    unseen: str = ""

    @property
    def only_gemma2(self):
        """Whether only PaliGemma 2 has what the mistake is about."""
        return all(name.startswith("gemma2.") for changes in self.variants for name in changes)


def in_decoders(function, wrong):
    """Return the changes that make one function wrong in both decoders.

    Parameters
    ----------
    function : str
        Such as ``"attend"``.
    wrong : callable
        As in `Changes`.

    Returns
    -------
    Changes
    """
    return {f"{decoder}.{function}": wrong for decoder in DECODERS}


class LeftOut:
    """Stands for the weights of a norm that is left out; `leaving_out` makes it so."""


def image_tokens():
    """Return the number of image tokens of the pass that runs; None in a step, which has no image."""
    image_BPD = enclosing("image_BPD")
    return None if image_BPD is None else image_BPD.shape[1]


def leaving_out(module, right):
    """Make a norm that returns its input where its weights are `LeftOut`."""
    return lambda x, p, epsilon: x if isinstance(p, LeftOut) else right(x, p, epsilon)


def library_of(x):
    """Return the library whose array ``x`` is: NumPy, or torch, which is imported already then."""
    return sys.modules["torch"] if hasattr(x, "detach") else np


def like(x, values):
    """Return numbers as an array of the kind and dtype of ``x``, on its device."""
    if hasattr(x, "detach"):
        return x.new_tensor(values)
    return np.asarray(values, dtype=x.dtype)


def rounded_to_bfloat16(x):
    """Round to the nearest bfloat16, ties to even, and keep the dtype.

    Parameters
    ----------
    x : array
        Of either backend; finite.

    Returns
    -------
    array

    Examples
    --------
    >>> import numpy as np
    >>> rounded_to_bfloat16(np.array([1.0, 1.00390625, 1.01171875, 3.14159]))
    array([1.      , 1.      , 1.015625, 3.140625])
    """
    if hasattr(x, "detach"):
        return x.bfloat16().to(x.dtype)
    return widen(narrow(x)).astype(x.dtype)


def weight_to_bfloat16(weight):
    """Round a weight; one that is held in a narrow dtype stays, for it cannot lose anything more.

    Parameters
    ----------
    weight : array or weight of a narrow dtype

    Returns
    -------
    the same kind
    """
    plain = isinstance(weight, np.ndarray) or hasattr(weight, "detach")
    return rounded_to_bfloat16(weight) if plain else weight
