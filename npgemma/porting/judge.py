"""The verdict on a port: the first array past its budget, in the data flow, whose inputs are right.

An array that was recalculated from the port's own inputs needs no right inputs.
"""

from dataclasses import dataclass

from npgemma.porting.bounds import BOUNDS
from npgemma.porting.conventions import Conventions
from npgemma.porting.coverage import Coverage, Pair
from npgemma.porting.difference import relative_l2
from npgemma.porting.graph import Graph
from npgemma.porting.reference import Reference


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
    """An array past its budget, with right inputs, or judged by its own error."""

    judged: Judged
    inputs: list[str]  # the nearest arrays upstream that the port shows
    between: list[str]  # arrays between that it does not show; the mistake may be made in any of them


def judge_end_to_end(reference: Reference, coverage: Coverage, dtype: str) -> dict[str, Judged]:
    """Compare every array that the port shows with the reference's, in the order of the data flow; how far it may be
    off depends on the port's dtype.
    """
    conventions = Conventions(reference, coverage.found)
    return {name: _judged(pair, BOUNDS[dtype], conventions) for name, pair in coverage.pairs.items()}


def _judged(pair, budget, conventions):
    if pair.found is None:
        return Judged(pair, None, budget, right=False)
    expected, found = pair.expected, conventions.undone(pair.name, pair.expected, pair.found)
    error = relative_l2(expected, found)
    return Judged(pair, error, budget, error <= budget)


def wrong_arrays(reference: Reference, judged: dict[str, Judged]) -> list[Wrong]:
    """Return every array past its budget that its inputs do not excuse, in the order of the data flow."""
    graph, wrong = Graph(reference.entries, judged), []
    for name, outcome in judged.items():
        if not outcome.right:
            inputs, between = graph.made_from(name)
            if outcome.alone or all(judged[source].right for source in inputs):
                wrong.append(Wrong(outcome, inputs, between))
    return wrong
