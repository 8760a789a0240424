"""Check the run against the twin: the same tokens on the other backend, compared array by array."""

import math

from npgemma import record
from npgemma.porting import given_tokens
from npgemma.porting.backends import Comparison
from npgemma.porting.bounds import BOUNDS

# Of a run with more bytes, only the outputs of its blocks are compared.
MOST_BYTES = 2**30
LARGE = "*/block.*/out_BTD"


def parity(inference, twin):
    """Compare the run with the same on the other backend; ``twin`` is None if there is none here.

    Returns
    -------
    dict or None
        As `npgemma.porting.backends.Comparison.report`.
    """
    if twin is None:
        return None
    only = "*" if inference.recording.bytes <= MOST_BYTES else LARGE
    with record(only) as expected:
        ours = _most_probable(inference, inference.model)
    comparison = Comparison(expected, BOUNDS[inference.model.backend.dtype])
    with record(only, sink=comparison.sink):
        theirs = _most_probable(inference, twin)
    report = comparison.report(ours, theirs)
    report["places"] = [{key: _finite(value) for key, value in place.items()} for place in report["places"]]
    return report | {"backend": twin.backend.name, "dtype": inference.model.backend.dtype, "only": only}


def _most_probable(inference, model):
    """Return which tokens a model finds most probable while it takes those of the answer."""
    rows = given_tokens.run(model, inference.image.pixels_BYXC, inference.prompt_ids, inference.answer.token_ids)
    return rows[:, : model.tokenizer.size].argmax(axis=-1).tolist()


def _finite(value):
    """Return None for an infinite number, which JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
