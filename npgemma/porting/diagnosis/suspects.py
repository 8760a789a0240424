"""Which known mistakes can have made an array wrong: those of functions between it and the inputs that a port shows."""

import re

from npgemma.porting.diagnosis.replays import Replays
from npgemma.porting.mistakes import MISTAKES

# What is done before the pass leaves no call in a trace.
BEFORE = ("image.", "tokenizer.", "siglip.encode")


def suspects(replays: Replays, name: str) -> list[tuple[str, int]]:
    """Return the mistakes, each in all its variants, that exchange a function that made an array, or one that holds
    such a function.
    """
    entries = [replays.entries[each] for each in _made_by(replays.graph, name)]
    functions = set()
    for entry in entries:
        functions |= {call.partition(".")[0] for call in entry.name.split("/")[:-1]}
        functions |= {*entry.ops, *re.findall(r"(\w+)\(", entry.formula)}
    outside = not entries or any(entry.op == "input" for entry in entries)
    return [
        (id, variant)
        for id, mistake in MISTAKES.items()
        for variant, changes in enumerate(mistake.variants)
        if any(path.rpartition(".")[2] in functions or (outside and path.startswith(BEFORE)) for path in changes)
    ]


def _made_by(graph, name):
    """Return the array and those between it and its inputs; angles are never judged, so that they count as between."""
    if name not in graph.order:  # the prompt
        return set()
    inputs, between = graph.made_from(name)
    angles = (_made_by(graph, each) for each in inputs if each.endswith("angle_BTh"))
    return {name, graph.first(name), *between}.union(*angles)
