"""Own errors by kind of operation: how much of what rounding may do a program uses."""

from collections.abc import Iterator
from typing import Any

from npgemma.porting.bounds import kind_of
from npgemma.porting.diagnosis.replays import Replays
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
