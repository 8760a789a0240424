"""A port's own errors: every array beside what the reference makes, in float64, of the port's own inputs.

`npgemma compare` and `npgemma diagnose` both begin here.
"""

import dataclasses
from collections.abc import Container
from typing import Any

from npgemma.porting.coverage import Coverage
from npgemma.porting.diagnosis import Port, Replays
from npgemma.porting.exact import exact
from npgemma.porting.judge import Judged
from npgemma.porting.own_errors import own_errors
from npgemma.porting.reference import Reference

PROMPT = "prefill.0/ids_BT"


def judge_alone(
    reference: Reference, coverage: Coverage, names: Container[str], dtype: str
) -> tuple[dict[str, Judged], list[dict[str, Any]]]:
    """Judge by its own error every array among ``names`` that can be recalculated, which one of another shape cannot;
    return also `own_errors`. The reference must have its model.
    """
    arrays = {name: array for name, array in coverage.found.items() if name in names}
    if PROMPT in names and PROMPT not in arrays:
        arrays[PROMPT] = coverage.pairs[PROMPT].raw  # a prompt of another length
    replays = replays_of(reference, arrays, dtype, keep=False)
    wrong = {PROMPT if name == "prompt" else name for name in replays.wrong(replays.right)}
    judged = {}
    for name, place in replays.right.items():
        pair = coverage.pairs.get(name)
        if name in names and pair and pair.found is not None and place.error is not None:
            if place.computed is not None:
                conforming = replays.conforming(name, place.computed)
                pair = dataclasses.replace(pair, expected=place.computed, found=conforming)
            judged[name] = Judged(pair, place.error, replays.limits[name], name not in wrong, alone=True)
    return judged, own_errors(replays)


def replays_of(reference, arrays, dtype, load=None, prompt=None, keep=True):
    """Return the replays of a port's arrays, given under our names, on the reference's model.

    Mistakes in reading images need ``load``, which reads the pixels anew, and mistakes in the prompt's tokens the text
    of the ``prompt``: by default pixels and ids are the reference's, whatever mistake is injected.
    """
    prompt = reference.about["ids"] if prompt is None else prompt
    port = Port(arrays, reference.token_ids, dtype)
    return Replays(exact(reference.model, dtype), load or (lambda: reference.pixels), prompt, port, reference, keep)
