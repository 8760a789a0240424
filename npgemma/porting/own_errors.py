"""Own errors by kind of operation: how much of what rounding may do a program uses."""

from npgemma.porting.bounds import kind_of
from npgemma.porting.diagnosis import Port, Replays
from npgemma.porting.exact import exact


def judged(replays):
    """Yield the arrays of a port that were recalculated, each under the first name that the port gives it.

    Parameters
    ----------
    replays : npgemma.porting.diagnosis.Replays

    Yields
    ------
    str, npgemma.probe.manifest.Entry, Place
        The entry is that of the array's very first name, which says how it is made.
    """
    entries, seen = replays.entries, set()
    for name, entry in entries.items():
        place, first = replays.right.get(name), entry.same_as or name
        if place is not None and place.error is not None and first not in seen:
            seen.add(first)
            yield name, entries[first], place


def own_errors(replays):
    """Return of each kind of operation the own error that is nearest to its limit, or farthest past it.

    Parameters
    ----------
    replays : npgemma.porting.diagnosis.Replays

    Returns
    -------
    list of dict
        ``kind``, ``arrays``, ``own_error``, ``allowed``, ``percent_of_limit`` and ``worst`` (the array
        they are of), one for each kind.
    """
    kinds = {}
    for name, entry, place in judged(replays):
        kinds.setdefault(kind_of(entry), []).append((place.error / place.limit, place.error, place.limit, name))
    return [
        {
            "kind": kind,
            "arrays": len(found),
            "own_error": max(found)[1],
            "allowed": max(found)[2],
            "percent_of_limit": 100 * max(found)[0],
            "worst": max(found)[3],
        }
        for kind, found in kinds.items()
    ]


def of_twin(model, pixels, prompt, found, token_ids):
    """Judge every operation of the twin's trace by itself: ``own_errors``, and ``past_limit``, the names of arrays.

    Of int8, which is no rounding of the twin's, nothing is judged.
    """
    if model.backend.dtype == "int8":
        return {"own_errors": [], "past_limit": []}
    replays = Replays(exact(model), lambda: pixels, prompt, Port(found, token_ids, model.backend.dtype))
    return {"own_errors": own_errors(replays), "past_limit": replays.wrong(replays.right)}
