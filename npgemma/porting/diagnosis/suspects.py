"""Which known mistakes can have made an array wrong: those of functions between it and the inputs that a port shows."""

import re
from collections.abc import Iterable

from npgemma.porting.diagnosis.replays import Replays
from npgemma.porting.mistakes import MISTAKES

# What is done before the pass leaves no call in a trace.
BEFORE = ("image.", "tokenizer.", "siglip.encode")


def suspects(replays: Replays, name: str, injections: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the injections that exchange a function that made an array, or one that holds such a function."""
    graph, is_prompt = replays.graph, name not in replays.entries
    made_by = () if is_prompt else {name, graph.first(name), *graph.made_from(name)[1]}
    entries = [replays.entries[each] for each in made_by]
    functions = set()
    for entry in entries:
        functions |= {call.partition(".")[0] for call in entry.name.split("/")[:-1]}
        functions |= {*entry.ops, *re.findall(r"(\w+)\(", entry.formula)}
    outside = is_prompt or any(entry.op == "input" for entry in entries)

    def touches(path):
        return path.rpartition(".")[2] in functions or (outside and path.startswith(BEFORE))

    return [(id, variant) for id, variant in injections if any(map(touches, MISTAKES[id].variants[variant]))]
