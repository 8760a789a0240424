"""What a known mistake is, and what the wrong functions share for which it exchanges the right ones."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npgemma.config import Config, Gemma2Config
from npgemma.fast.bfloat16 import narrow, widen
from npgemma.probe.exchange import Changes
from npgemma.probe.following import enclosing

DECODERS = ("gemma", "gemma2")


@dataclass(frozen=True)
class Mistake:
    """A known mistake."""

    id: str
    says: str  # the mistake in one sentence
    made_by: str  # who made it, or what leads to it
    place: str  # pattern of the first array in a trace that differs; where no array does, where the mistake shows
    variants: tuple[Changes, ...]  # such as two values of the same epsilon; the first is the usual one
    unseen: str = ""  # where the mistake changes nothing, the reason
    counts: bool = False  # whether it matters from which number a port counts positions: else nothing depends on that

    @property
    def only_gemma2(self) -> bool:
        """Whether only PaliGemma 2 has what the mistake is about."""
        return all(name.startswith("gemma2.") for changes in self.variants for name in changes)

    @property
    def shows_in_arrays(self) -> bool:
        """Whether arrays and logits can show it: it is not about what is made of the logits."""
        return not any(name.startswith(("answer.", "model.")) for changes in self.variants for name in changes)

    def possible_in(self, config: Config) -> bool:
        """Say whether a model of these sizes has what the mistake is about."""
        return isinstance(config.text, Gemma2Config) or not self.only_gemma2


def in_decoders(function: str, wrong: Callable[[Any, Callable], Callable]) -> dict[str, Callable]:
    """Return the changes that make one function, such as ``attend``, wrong in both decoders."""
    return {f"{decoder}.{function}": wrong for decoder in DECODERS}


def counted_from(origin: int) -> dict[str, Callable]:
    """Return the changes that count positions from a number other than 0."""
    return in_decoders("positions", lambda module, right: lambda *given: right(*given) + origin) if origin else {}


def with_weights(place: int, **weights: Callable[[Any], Any]) -> Callable[[Any, Callable], Callable]:
    """Return the change that replaces fields of a function's weights, which are its argument ``place``.

    Each is given as a function of the right weights: ``with_weights(1, gate=lambda p: p.up, up=lambda p: p.gate)``.
    """

    def change(module, right):
        def wrong(*arguments):
            p = arguments[place]
            p = replace(p, **{name: of(p) for name, of in weights.items()})
            return right(*arguments[:place], p, *arguments[place + 1 :])

        return wrong

    return change


def without(*biases: str) -> Callable[[Any, Callable], Callable]:
    """Return the change that makes biases of a function's weights, which are its second argument, zero."""
    return with_weights(1, **{name: lambda p, name=name: getattr(p, name) * 0 for name in biases})


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
    """Round a finite array of either backend to the nearest bfloat16, ties to even, and keep its dtype.

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
    """Round a weight; one of a narrow dtype stays as it is, for it has nothing more to lose."""
    plain = isinstance(weight, np.ndarray) or hasattr(weight, "detach")
    return rounded_to_bfloat16(weight) if plain else weight
