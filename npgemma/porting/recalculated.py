"""A port's own errors: every array beside what the reference makes, in float64, of the port's own inputs.

`npgemma compare` and `npgemma diagnose` both begin here.
"""

import dataclasses

from npgemma.porting.diagnosis import Port, Replays
from npgemma.porting.exact import exact
from npgemma.porting.judge import Judged
from npgemma.porting.own_errors import own_errors

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
        As `npgemma.porting.own_errors.own_errors` gives them.
    """
    arrays = {name: coverage.pairs[name].found for name in names if coverage.pairs[name].found is not None}
    if PROMPT in names and PROMPT not in arrays:
        arrays[PROMPT] = coverage.pairs[PROMPT].raw  # a prompt of another length
    replays = replays_of(reference, arrays, dtype, keep=False)
    wrong = {PROMPT if name == "prompt" else name for name in replays.wrong(replays.right)}
    found = {}
    for name, place in replays.right.items():
        pair = coverage.pairs.get(name)
        if name in names and pair.found is not None and place.error is not None:
            if place.computed is not None:
                conforming = replays.conforming(name, place.computed)
                pair = dataclasses.replace(pair, expected=place.computed, found=conforming)
            found[name] = Judged(pair, place.error, replays.limits[name], name not in wrong, alone=True)
    return found, own_errors(replays)


def replays_of(reference, arrays, dtype, load=None, prompt=None, keep=True):
    """Return the replays of a port's arrays on the reference's model.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
        With its model.
    arrays : dict of str to array
        The port's, under our names.
    dtype : str
        The port's.
    load : callable, optional
        Reads the pixels anew; by default they are those of the reference, whatever mistake is injected.
    prompt : str, optional
        The text, for mistakes in its tokens; by default these are the reference's.
    keep : bool
        As for `npgemma.porting.diagnosis.Replays`.

    Returns
    -------
    npgemma.porting.diagnosis.Replays
    """
    prompt = reference.about["ids"] if prompt is None else prompt
    port = Port(arrays, reference.token_ids, dtype)
    return Replays(exact(reference.model, dtype), load or (lambda: reference.pixels), prompt, port, reference, keep)
