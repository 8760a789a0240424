"""Which of a port's arrays are known, and which of ours the port shows: to be read before any verdict."""

import re
from dataclasses import dataclass

import numpy as np

from npgemma.porting.arrange import Misfit, arrange, layouts
from npgemma.porting.bounds import ALIKE
from npgemma.porting.difference import relative_l2
from npgemma.porting.name_map import Rule
from npgemma.porting.reference import kind

# Suggestions go through all orders of axes, so they look at no more of the largest arrays.
LARGEST = 2**22


@dataclass(frozen=True)
class Pair:
    """An array of ours and the port's array for it."""

    name: str  # ours
    port: str
    expected: np.ndarray
    raw: np.ndarray  # as the port wrote it
    found: np.ndarray | None  # in our layout
    misfit: str | None  # why there is none


@dataclass(frozen=True)
class Coverage:
    """What could be compared.

    Parameters
    ----------
    pairs : dict of str to Pair
        By our name, in the order of the data flow.
    known : list of str
        Ours that the port does not show, but of which it shows another name.
    unseen : list of str
        Ours that it does not show at all.
    unknown : dict of str to array
        The port's that no rule knows.
    """

    pairs: dict[str, Pair]
    known: list[str]
    unseen: list[str]
    unknown: dict[str, np.ndarray]

    @property
    def found(self):
        """The port's arrays that fit, under our names and in our layouts."""
        return {name: pair.found for name, pair in self.pairs.items() if pair.found is not None}

    def counts(self):
        """Return the coverage as numbers."""
        kinds = {kind(name) for name in self.pairs}
        return {
            "arrays": len(self.pairs),
            "kinds": len(kinds),
            "known_kinds": len({kind(name) for name in self.known} - kinds),
            "unseen_kinds": len({kind(name) for name in self.unseen} - kinds),
            "port_arrays": len({pair.port for pair in self.pairs.values()}) + len(self.unknown),
            "unknown": len(self.unknown),
        }


def cover(reference, port, rules=()):
    """Find our array for each of a port's.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
    port : dict of str to array
        The port's, under its own names.
    rules : list of npgemma.porting.name_map.Rule, optional
        A name that no rule knows may be ours.

    Returns
    -------
    Coverage
    """
    found, unknown = {}, {}
    for name, raw in port.items():
        matches = [(rule, ours) for rule in rules if (ours := rule.match(name)) in reference.entries]
        if not matches and name in reference.entries:
            matches = [(Rule(name, name), name)]
        for rule, ours in matches:
            found.setdefault(ours, _pair(reference, rule, ours, name, raw))
        if not matches:
            unknown[name] = raw
    pairs = {name: found[name] for name in reference.entries if name in found}
    shown = {_first_name(reference, name) for name in pairs}
    rest = [name for name in reference.entries if name not in pairs]
    known = [name for name in rest if _first_name(reference, name) in shown]
    return Coverage(pairs, known, [name for name in rest if name not in set(known)], unknown)


def _first_name(reference, name):
    return reference.entries[name].same_as or name


def _pair(reference, rule, ours, name, raw):
    expected, letters = reference.arrays[ours], reference.entries[ours].axes
    try:
        axes = rule.axes
        if axes is None and 0 < raw.ndim == expected.ndim - 1 and expected.shape[0] == 1:
            axes = letters[1:]  # the batch is left out
        rule = Rule(name, ours, axes, rule.offset, rule.scale, rule.take, rule.true_where)
        return Pair(ours, name, expected, raw, rule.convert(raw, letters, expected.shape), None)
    except Misfit as problem:
        return Pair(ours, name, expected, raw, None, str(problem))


def fitting_layout(raw, expected, letters, alike=ALIKE):
    """Return the layout under which a port's array is ours, or None.

    Parameters
    ----------
    raw, expected : array
    letters : str
        The axes of ours.
    alike : float
        The largest relative L2 error.

    Returns
    -------
    str or None
    """
    if raw.size != expected.size or not 1 < raw.size <= LARGEST or raw.dtype.kind != "f" != expected.dtype.kind:
        return None
    for axes in layouts(raw.shape, letters, expected.shape):
        if relative_l2(expected, arrange(raw, axes, letters, expected.shape)) <= alike:
            return axes
    return None


def suggest(reference, coverage):
    """Suggest rules for the port's arrays that no rule knows, one of each kind.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
    coverage : Coverage

    Returns
    -------
    list of dict
        ``port``, ``ours``, ``axes`` and ``by``: ``value`` or, where no value fits, ``shape``.
    """
    candidates = {}
    for name in coverage.unseen:
        candidates.setdefault(kind(name), name)
    kinds = {}
    for port, raw in coverage.unknown.items():
        if raw.dtype.kind == "f" and raw.size > 1:
            kinds.setdefault(re.sub(r"\d+", "*", port), (port, raw))
    found = [_suggestion(reference, port, raw, candidates.values()) for port, raw in kinds.values()]
    return [suggestion for suggestion in found if suggestion]


def _suggestion(reference, port, raw, candidates):
    by_shape = None
    for ours in candidates:
        expected, letters = reference.arrays[ours], reference.entries[ours].axes
        if raw.size != expected.size or expected.dtype.kind != "f":
            continue
        axes = fitting_layout(raw, expected, letters)
        if axes:
            return {"port": port, "ours": ours, "axes": axes, "by": "value"}
        axes = next(layouts(raw.shape, letters, expected.shape), None)
        if axes and by_shape is None:
            by_shape = {"port": port, "ours": ours, "axes": axes, "by": "shape"}
    return by_shape
