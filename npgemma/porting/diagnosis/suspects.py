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
    functions: dict[bool, set[str]] = {True: set(), False: set()}  # of the vision tower, and of the rest
    for entry in entries:
        of_part = functions[entry.name.startswith("encode_image")]
        of_part |= {call.partition(".")[0] for call in entry.name.split("/")[:-1]}
        of_part |= {*entry.ops, *re.findall(r"(\w+)\(", entry.formula)}
    outside = is_prompt or any(entry.op == "input" for entry in entries)

    def touches(path):
        module, _, function = path.rpartition(".")
        parts = {"siglip": (True,), "gemma": (False,), "gemma2": (False,)}.get(module, (True, False))
        return any(function in functions[part] for part in parts) or (outside and path.startswith(BEFORE))

    return [(id, variant) for id, variant in injections if any(map(touches, MISTAKES[id].variants[variant]))]
