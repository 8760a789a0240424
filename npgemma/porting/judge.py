"""The verdict on a port: the first array past its budget, in the data flow, whose inputs are right.

What was recalculated from the port's own inputs needs no right inputs.
"""

from dataclasses import dataclass

import numpy as np

from npgemma.porting.bounds import BOUNDS
from npgemma.porting.conventions import Conventions
from npgemma.porting.coverage import Pair
from npgemma.porting.difference import relative_l2
from npgemma.porting.graph import Graph


@dataclass(frozen=True)
class Judged:
    """An array of the port beside ours."""

    pair: Pair
    error: float | None  # relative L2; None where the shapes do not fit
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
    conventions = Conventions(reference, coverage.found)
    return {name: _judged(pair, BOUNDS[dtype], conventions) for name, pair in coverage.pairs.items()}


def _judged(pair, budget, conventions):
    if pair.found is None:
        return Judged(pair, None, budget, right=False)
    expected, found = pair.expected, conventions.undone(pair.name, pair.expected, pair.found)
    if expected.dtype.kind in "iub" and found.dtype.kind == "f":
        expected = expected.astype(np.float64)
    error = relative_l2(expected, found)
    return Judged(pair, error, budget, error <= budget)


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
    graph, wrong = Graph(reference.entries, judged), []
    for name, outcome in judged.items():
        if not outcome.right:
            inputs, between = graph.made_from(name)
            if outcome.alone or all(judged[each].right for each in inputs):
                wrong.append(Wrong(outcome, inputs, between))
    return wrong
