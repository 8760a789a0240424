"""The verdict on a port: the first array past its budget, in the data flow, whose inputs are right.

What was recalculated from the port's own inputs needs no right inputs.
"""

from dataclasses import dataclass

import numpy as np

from npgemma.porting.backends import BOUNDS, Difference, difference
from npgemma.porting.conventions import Gauge
from npgemma.porting.coverage import Pair


@dataclass(frozen=True)
class Judged:
    """An array of the port beside ours."""

    pair: Pair
    difference: Difference | None  # None where the shapes do not fit
    budget: float
    right: bool
    alone: bool = False  # whether the expected array was made from the port's own inputs


@dataclass(frozen=True)
class Wrong:
    """An array past its budget, with right inputs, or judged by its own error.

    Parameters
    ----------
    judged : Judged
    inputs : list of str
        The nearest arrays that it was made from and that the port shows.
    between : list of str
        Arrays on the way from them that the port does not show; the mistake may be made in any of them.
    """

    judged: Judged
    inputs: list[str]
    between: list[str]


def judge(reference, coverage, dtype):
    """Compare every array that the port shows.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
    coverage : npgemma.porting.coverage.Coverage
    dtype : str
        The port's: how far it may be off depends on it.

    Returns
    -------
    dict of str to Judged
        In the order of the data flow.
    """
    gauge = Gauge(reference, coverage.pairs)
    return {name: _judged(pair, BOUNDS[dtype], gauge) for name, pair in coverage.pairs.items()}


def _judged(pair, budget, gauge):
    if pair.found is None:
        return Judged(pair, None, budget, right=False)
    expected, found = pair.expected, gauge.undone(pair)
    if expected.dtype.kind in "iub" and found.dtype.kind == "f":
        expected = expected.astype(np.float64)
    apart = difference(expected, found)
    return Judged(pair, apart, budget, apart.relative_l2 <= budget)


def wrong_arrays(reference, judged):
    """Return every array past its budget that its inputs do not excuse, in the order of the data flow.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
    judged : dict of str to Judged

    Returns
    -------
    list of Wrong
    """
    order = {name: i for i, name in enumerate(reference.entries)}
    shown = {}  # by first name, all the port's arrays that tell of it
    for name in judged:
        shown.setdefault(reference.entries[name]["same_as"] or name, []).append(name)
    wrong = []
    for name, outcome in judged.items():
        if not outcome.right:
            inputs, between = _made_from(name, reference.entries, shown, order)
            if outcome.alone or all(judged[each].right for each in inputs):
                wrong.append(Wrong(outcome, inputs, between))
    return wrong


def _made_from(name, entries, shown, order):
    """Return the nearest arrays that one was made from and the port shows, and those on the way that it does not."""
    inputs, between, waiting = [], [], list(entries[name]["from"])
    for each in waiting:
        if each not in entries:
            continue
        telling = [other for other in shown.get(entries[each]["same_as"] or each, []) if order[other] < order[name]]
        if telling:
            inputs += telling
        else:
            between.append(each)
            waiting += [above for above in entries[each]["from"] if above not in waiting]
    return sorted(set(inputs), key=order.get), sorted(set(between), key=order.get)
