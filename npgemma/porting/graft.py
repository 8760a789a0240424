"""A port's array put in place of ours: was a mistake made downstream of it, or inherited through it?"""

from collections.abc import Sequence
from typing import Any

from npgemma.errors import InputError
from npgemma.porting import given_tokens
from npgemma.porting.bounds import BOUNDS
from npgemma.porting.conventions import Conventions
from npgemma.porting.coverage import Coverage
from npgemma.porting.difference import relative_l2
from npgemma.porting.exact import exact
from npgemma.porting.graph import Graph
from npgemma.porting.reference import Reference
from npgemma.probe.replay import replaying


def graft(reference: Reference, coverage: Coverage, names: Sequence[str], dtype: str) -> dict[str, Any]:
    """Run the reference with some of a port's arrays in place of its own, and compare what is downstream with the
    port's.

    ``names`` are ours, ``dtype`` is the port's. The report has ``inherited``, the names that differ from ours before
    they are replaced; ``behind``, how many arrays downstream were compared, up to the end of the last pass that has one
    of the names; ``past_bound``, how many of them still differ; ``first``, the first of these; ``largest``, the largest
    relative L2 error downstream; and the ``bound``. Raises `InputError` if a name is not ours or the port does not show
    it, or if the reference has no model to run.
    """
    if reference.model is None:
        raise InputError("--graft runs the reference: it needs the checkpoint that made the trace")
    for name in names:
        _check(name, reference, coverage)
    conventions = Conventions(reference, coverage.found)
    port = {
        name: conventions.undone(name, coverage.pairs[name].expected, array) for name, array in coverage.found.items()
    }
    computed, bound = _replayed(reference, port, names, dtype), BOUNDS[dtype]
    # Later passes have their own inputs, and make a mistake again that a graft took out of an earlier one.
    last = max(_pass(name) for name in names)
    downstream = [name for name in Graph(reference.entries).downstream(names) if _pass(name) <= last]
    compared = [name for name in downstream if name in port and name in computed]
    error = {name: relative_l2(computed[name], port[name]) for name in [*names, *compared]}
    past = [name for name in compared if error[name] > bound]
    return {
        "names": list(names),
        "inherited": [name for name in names if error[name] > bound],
        "behind": len(compared),
        "past_bound": len(past),
        "first": past[0] if past else None,
        "first_error": error[past[0]] if past else None,
        "largest": max((error[name] for name in compared), default=0.0),
        "bound": bound,
    }


def _check(name, reference, coverage):
    if name not in reference.entries:
        ours = [pair.name for pair in coverage.pairs.values() if pair.port == name]
        hint = f"here it is called {' or '.join(ours)}" if ours else "npgemma trace --list prints the names"
        raise InputError(f"there is no array '{name}' to graft: {hint}")
    pair = coverage.pairs.get(name)
    if pair is None:
        raise InputError(f"the port does not show '{name}', so it cannot be grafted; --check-map lists what it shows")
    if pair.found is None:
        raise InputError(f"the port's '{name}' cannot be grafted: {pair.misfit}")


def _replayed(reference, port, names, dtype):
    """Return what the reference calculates, each array before the port's is put in its place."""
    computed = {}

    def choose(name, array, inside):
        computed[name] = array
        return port[name].astype(array.dtype) if name in names and port[name].shape == array.shape else array

    with replaying(choose):
        model = exact(reference.model, dtype)
        given_tokens.run(model, reference.pixels, reference.about["ids"], reference.token_ids)
    return computed


def _pass(name):
    """Return the number of a pass; the image is encoded for the prefill."""
    head = name.partition("/")[0]
    return int(head.removeprefix("step.")) + 1 if head.startswith("step.") else 0
