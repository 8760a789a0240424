"""Own errors by kind of operation: how much of what rounding may do a program uses."""

import dataclasses

import numpy as np

from npgemma.machinery.backend import numpy_backend, to_numpy
from npgemma.params import leaves, map_leaves
from npgemma.porting.bounds import kind_of

# In float64 the reference of a larger model would need more than 8 GB.
MOST_PARAMETERS = 1_000_000_000


def fits(model):
    """Say whether a model is small enough for a reference in float64 beside it.

    Parameters
    ----------
    model : npgemma.Model

    Returns
    -------
    bool
    """
    return sum(leaf.size for _, _, leaf in leaves(model.params)) <= MOST_PARAMETERS


def in_float64(model):
    """Return a model of the NumPy backend that holds the same numbers and calculates in float64.

    Parameters
    ----------
    model : npgemma.Model
        Of the NumPy backend.

    Returns
    -------
    npgemma.Model
    """
    params = map_leaves(lambda leaf: to_numpy(leaf).astype(np.float64), model.params)
    return dataclasses.replace(model, params=params, backend=numpy_backend("float64"))


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
    entries, seen = replays.manifest.entries, set()
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
