"""Own errors by kind of operation: how much of what rounding may do a program uses."""

from collections.abc import Iterator
from typing import Any

from npgemma.porting.bounds import kind_of
from npgemma.porting.diagnosis import Port, Replays
from npgemma.porting.exact import exact
from npgemma.probe.manifest import Entry


def recalculated(replays: Replays) -> Iterator[tuple[str, Entry, Any]]:
    """Yield each recalculated array of a port under the first name that the port gives it, with the manifest's entry of
    its very first name, which says how it is made.
    """
    entries, seen = replays.entries, set()
    for name, entry in entries.items():
        place, first = replays.right.get(name), entry.same_as or name
        if place is not None and place.error is not None and first not in seen:
            seen.add(first)
            yield name, entries[first], place


def own_errors(replays: Replays) -> list[dict[str, Any]]:
    """Return for each kind of operation the own error that is nearest to its limit, or farthest past it, and the array
    that has it.
    """
    kinds: dict[str, list[tuple[float, float, float, str]]] = {}
    for name, entry, place in recalculated(replays):
        kinds.setdefault(kind_of(entry), []).append((place.error / place.limit, place.error, place.limit, name))
    return [
        {
            "kind": kind,
            "arrays": len(rows),
            "own_error": error,
            "allowed": limit,
            "percent_of_limit": 100 * share,
            "worst": name,
        }
        for kind, rows in kinds.items()
        for share, error, limit, name in [max(rows)]
    ]


def of_twin(model, pixels, prompt, found, token_ids):
    """Judge every operation of the twin's trace by itself: ``own_errors``, and ``past_limit``, the names of arrays.

    Of int8, which is no rounding of the twin's, nothing is judged.
    """
    if model.backend.dtype == "int8":
        return {"own_errors": [], "past_limit": []}
    replays = Replays(exact(model), lambda: pixels, prompt, Port(found, token_ids, model.backend.dtype))
    return {"own_errors": own_errors(replays), "past_limit": replays.wrong(replays.right)}
