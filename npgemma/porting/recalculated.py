"""A port's own errors: every array beside what the reference makes, in float64, of the port's own inputs."""

import dataclasses

from npgemma.porting.backends import difference
from npgemma.porting.conventions import Gauge
from npgemma.porting.diagnosis import Port, Replays, with_weights_of
from npgemma.porting.diagnosis.own_errors import in_float64, own_errors
from npgemma.porting.judge import Judged

PROMPT = "prefill.0/ids_BT"


def judge_alone(reference, coverage, names, dtype):
    """Judge every array of a port by its own error.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
        With its model.
    coverage : npgemma.porting.coverage.Coverage
    names : collection of str
        Ours, of the arrays that may be compared.
    dtype : str
        The port's.

    Returns
    -------
    dict of str to Judged
        Only arrays that could be recalculated: not those of a shape that does not fit.
    list of dict
        As `npgemma.porting.diagnosis.own_errors.own_errors` gives them.
    """
    replays = replays_of(reference, coverage, names, dtype)
    wrong = {PROMPT if name == "prompt" else name for name in replays.wrong(replays.right)}
    found = {}
    for name, place in replays.right.items():
        pair = coverage.pairs.get(name)
        if name in names and pair.found is not None and place.error is not None:
            pair = dataclasses.replace(pair, expected=place.computed, found=replays.conforming(name, place.computed))
            limit = replays.limits[name]
            found[name] = Judged(pair, difference(pair.expected, pair.found), limit, name not in wrong, alone=True)
    return found, own_errors(replays)


def replays_of(reference, coverage, names, dtype):
    """Return the replays of a port's arrays on the reference's model.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
    coverage : npgemma.porting.coverage.Coverage
    names : collection of str
    dtype : str

    Returns
    -------
    npgemma.porting.diagnosis.Replays
    """
    gauge, arrays = Gauge(reference, coverage.pairs), {}
    for name in names:
        pair = coverage.pairs[name]
        if pair.found is not None:
            filled = (reference.entries[name]["gauge"] or "").startswith("fill")
            arrays[name] = gauge.undone(pair) if filled else pair.found
        elif name == PROMPT:
            arrays[name] = pair.raw  # a prompt of another length
    port = Port(arrays, reference.token_ids, dtype)
    return Replays(
        with_weights_of(in_float64(reference.model), dtype), lambda: reference.pixels, reference.about["ids"], port
    )
