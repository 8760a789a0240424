"""The settings by which an answer's tokens are chosen, validated.

*Next:* ``machinery/backend.py``. *Skip on a first reading:* this file and the three behind it.
"""

import math
from dataclasses import dataclass
from typing import TypedDict, Unpack

from npgemma.errors import InputError


class Settings(TypedDict, total=False):
    """The fields of `Sampling`, for type checkers: what `npgemma.Model.generate` takes as keywords."""

    max_new_tokens: int
    do_sample: bool
    temperature: float
    top_k: int | None
    top_p: float
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of an answer.

    Parameters
    ----------
    max_new_tokens : int
        The most tokens of the answer, at least 1.
    do_sample : bool
        Draw each token by its probability instead of taking the most probable one. The next four count only then.
    temperature : float
        0 or above; the logits are divided by it (`npgemma.generate.sample`). 0 takes the most probable token, which is
        the limit for temperatures near 0.
    top_k : int, optional
        At least 1: draw among that many most probable tokens.
    top_p : float
        Above 0 and at most 1: draw among the fewest most probable tokens that together reach this probability.
    seed : int, optional
        0 or more. The same seed gives the same answer.

    Raises
    ------
    InputError
        If a value is outside its range.
    """

    max_new_tokens: int = 100
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int | None = None

    @classmethod
    def of(cls, **settings: Unpack[Settings]) -> "Sampling":
        """Return the settings that were given as keywords; raise a TypeError that lists them if one is unknown."""
        known = list(cls.__dataclass_fields__)
        for name in settings:
            if name not in known:
                raise TypeError(f"'{name}' is not a setting of an answer: expected {', '.join(known)}")
        return cls(**settings)

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        _check_whole("max_new_tokens", self.max_new_tokens, 1)
        if not isinstance(self.do_sample, bool):
            raise InputError(f"do_sample should be True or False, found {self.do_sample!r}")
        if not _is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature should be 0 or a number above 0, found {self.temperature!r}")
        if self.top_k is not None:
            _check_whole("top_k", self.top_k, 1)
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise InputError(f"top_p should be above 0 and at most 1, found {self.top_p!r}")
        if self.seed is not None:
            _check_whole("seed", self.seed, 0)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_whole(name: str, value: int, least: int) -> None:
    if not hasattr(value, "__index__") or isinstance(value, bool) or value < least:
        raise InputError(f"{name} should be a whole number of at least {least}, found {value!r}")
