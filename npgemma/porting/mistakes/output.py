"""Mistakes in what comes out: how tokens are chosen, and how an answer's text is read."""

import dataclasses
import re

import numpy as np

from npgemma.machinery.backend import to_numpy
from npgemma.porting.mistakes.injection import Mistake


def _x_first(module, right):
    def wrong(text, *others):
        return right(re.sub(r"(<loc\d{4}>)(<loc\d{4}>)", r"\2\1", text), *others)

    return wrong


@dataclasses.dataclass(frozen=True)
class _EveryRow:
    """A tokenizer for which every row of the embedding table is a token."""

    size: int


def _padded(module, right):
    def wrong(self, *settings):
        every_row = _EveryRow(self.config.text.vocabulary)
        return right(dataclasses.replace(self, loaded_tokenizer=every_row), *settings)

    return wrong


def _without_end(module, right):
    def wrong(self, *arguments):
        return right(dataclasses.replace(self, config=dataclasses.replace(self.config, eos_tokens=())), *arguments)

    return wrong


def _without_crossing(module, right):
    def wrong(self, *settings):
        backend = self.backend

        def sample(logit_BV, uniform_B, temperature, top_k, top_p):
            kept = backend.to_array(without_crossing(to_numpy(logit_BV), temperature, top_k, top_p))
            return backend.sample(kept, uniform_B, temperature, top_k, 1.0)

        return right(dataclasses.replace(self, backend=dataclasses.replace(backend, sample=sample)), *settings)

    return wrong


def without_crossing(logit_BV, temperature, top_k, top_p):
    """Return logits of -inf for all but the most probable tokens that together stay within ``top_p``.

    Right is one token more: the one that reaches ``top_p`` (`npgemma.generate.sample`).

    Examples
    --------
    Probabilities 0.5, 0.3, 0.15, 0.05; within 0.7 is the first alone:

    >>> import numpy as np
    >>> without_crossing(np.log(np.array([[0.3, 0.5, 0.05, 0.15]])), 1.0, None, 0.7)[0].round(2)
    array([ -inf, -0.69,  -inf,  -inf])
    """
    order_BR = np.argsort(-logit_BV, axis=-1, kind="stable")[:, :top_k]
    sorted_BR = np.take_along_axis(logit_BV, order_BR, axis=-1).astype(np.float64)
    weight_BR = np.exp((sorted_BR - sorted_BR[:, :1]) / temperature)
    total_BR = np.cumsum(weight_BR / weight_BR.sum(axis=-1, keepdims=True), axis=-1)
    # The most probable token always stays.
    dropped_BR = (total_BR > top_p) & (np.arange(order_BR.shape[1]) > 0)
    result_BV = np.full_like(logit_BV, -np.inf)
    np.put_along_axis(result_BV, order_BR, np.where(dropped_BR, -np.inf, sorted_BR).astype(logit_BV.dtype), axis=-1)
    return result_BV


_BOXES, _TOKENS = "the answer's boxes", "the answer's tokens"
_TEXT_ONLY = "logits do not show how the answer's text is read"
MISTAKES = (
    Mistake(
        "locations-1024",
        "A location n is taken for n / 1024 of the side instead of n / 1023.",
        "most programs that draw boxes, since there are 1024 locations",
        _BOXES,
        ({"answer.fraction": lambda module, right: lambda location: int(location) / 1024},),
        _TEXT_ONLY,
    ),
    Mistake(
        "locations-x-first",
        "Locations are read as left, top, right, bottom instead of top, left, bottom, right.",
        "the order of most other detectors",
        _BOXES,
        ({"model.find_objects": _x_first},),
        _TEXT_ONLY,
    ),
    Mistake(
        "padded-vocabulary-wins",
        "Rows that pad the embedding table, and stand for no token, can be chosen.",
        "samplers that do not know how many pieces the tokenizer has",
        _TOKENS,
        ({"model.Model.chooser": _padded},),
        "no such row is the most probable",
    ),
    Mistake(
        "eos-ignored",
        "The answer goes on after <eos>.",
        "loops that know one end token where a checkpoint has several (lighteval issue 1279, mlx-vlm issue 2112)",
        _TOKENS,
        ({"model.Model._answer": _without_end},),
        "the answer has no <eos>",
    ),
    Mistake(
        "top-p-drops-crossing-token",
        "Top-p drops the token that reaches p, too.",
        "cumulative sums compared after the token instead of before it (Holtzman et al. keep it)",
        _TOKENS,
        ({"model.Model.chooser": _without_crossing},),
        "logits do not show how tokens are drawn",
    ),
)
