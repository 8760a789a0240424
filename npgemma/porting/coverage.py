"""Which of a port's arrays are known, and which of ours the port shows: to be read before any verdict."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.porting import given_tokens
from npgemma.porting.arrange import Misfit, arrange, layouts
from npgemma.porting.bounds import ALIKE
from npgemma.porting.difference import relative_l2
from npgemma.porting.name_map import Rule
from npgemma.porting.reference import Reference, kind

# Suggestions go through all orders of axes, so they look at no more of the largest arrays, and of arrays.
MOST_ENTRIES, MOST_KINDS = 2**22, 200
# Names times rules: some seconds.
MOST_MATCHES = 10_000_000


@dataclass(frozen=True)
class Pair:
    """An array of ours and the port's array for it."""

    name: str  # ours
    port: str
    expected: np.ndarray
    raw: np.ndarray  # as the port wrote it
    found: np.ndarray | None  # in our layout
    misfit: str | None  # why there is none

    @property
    def shown(self) -> np.ndarray:
        """The port's array, in our layout if it fits."""
        return self.raw if self.found is None else self.found


@dataclass(frozen=True)
class Coverage:
    """What could be compared."""

    pairs: dict[str, Pair]  # by our name, in the order of the data flow
    known: list[str]  # ours that the port does not show, but of which it shows another name
    unseen: list[str]  # ours that it does not show at all
    unknown: dict[str, np.ndarray]  # the port's that no rule knows

    @property
    def found(self) -> dict[str, np.ndarray]:
        """The port's arrays that fit, under our names and in our layouts."""
        return {name: pair.found for name, pair in self.pairs.items() if pair.found is not None}

    @property
    def shown(self) -> dict[str, np.ndarray]:
        """All of the port's arrays under our names, those that fit in our layouts."""
        return {name: pair.shown for name, pair in self.pairs.items()}

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


def cover(reference: Reference, port: dict[str, np.ndarray], rules: Sequence[Rule] = ()) -> Coverage:
    """Find our array for each of a port's, which has its own names; a name that no rule knows may be ours."""
    entries, unknown = reference.entries, {}
    unordered: dict[str, Pair] = {}
    if len(port) * len(rules) > MOST_MATCHES:
        raise InputError(f"{len(port)} arrays are too many for {len(rules)} rules: write fewer, or {{i}} for numbers")
    for name, raw in port.items():
        matches = [(rule, ours) for rule in rules if (ours := rule.match(name)) in entries]
        if not matches and name in entries:
            matches = [(Rule(name, name), name)]
        for rule, ours in matches:
            unordered.setdefault(ours, _pair(reference, rule, ours, name, raw))
        if not matches:
            unknown[name] = raw
    pairs = {name: unordered[name] for name in entries if name in unordered}
    for name, pair in pairs.items():
        if name.endswith("ids_BT"):
            told = f"the port's {shown(pair.port, 80)}"
            ids = given_tokens.row_of(pair.shown, told)
            if reference.model:
                given_tokens.check(ids, reference.model, told)
    first_names = {entries[name].same_as or name for name in pairs}
    rest = [name for name in entries if name not in pairs]
    known = [name for name in rest if (entries[name].same_as or name) in first_names]
    return Coverage(pairs, known, [name for name in rest if name not in set(known)], unknown)


def _pair(reference, rule, ours, name, raw):
    expected, letters = reference.arrays[ours], reference.entries[ours].axes
    if rule.axes is None and 0 < raw.ndim == expected.ndim - 1 and expected.shape[0] == 1:
        rule = dataclasses.replace(rule, axes=letters[1:])  # the batch is left out
    try:
        return Pair(ours, name, expected, raw, rule.convert(raw, letters, expected.shape), None)
    except Misfit as problem:
        return Pair(ours, name, expected, raw, None, str(problem))


def fitting_layout(raw, expected, letters: str, alike: float = ALIKE) -> str | None:
    """Return the layout under which a port's array is ours up to a relative L2 error of ``alike``; None if there is
    none. ``letters`` are the axes of ours.
    """
    if raw.size != expected.size or not 1 < raw.size <= MOST_ENTRIES or raw.dtype.kind != "f" != expected.dtype.kind:
        return None
    for axes in layouts(raw.shape, letters, expected.shape):
        if relative_l2(expected, arrange(raw, axes, letters, expected.shape)) <= alike:
            return axes
    return None


def suggest(reference: Reference, coverage: Coverage) -> list[dict[str, str]]:
    """Suggest rules for the port's arrays that no rule knows, one of each kind: ``port``, ``ours``, ``axes``, and
    ``by``, which is ``value`` or, where no value fits, ``shape``. Of more than `MOST_KINDS` kinds, the first.
    """
    candidates: dict[str, str] = {}
    for name in coverage.unseen:
        candidates.setdefault(kind(name), name)
    kinds: dict[str, tuple[str, np.ndarray]] = {}
    for port, raw in coverage.unknown.items():
        if raw.dtype.kind == "f" and raw.size > 1:
            kinds.setdefault(re.sub(r"\d+", "*", port), (port, raw))
    looked_at = itertools.islice(kinds.values(), MOST_KINDS)
    suggestions = [_suggestion(reference, port, raw, candidates.values()) for port, raw in looked_at]
    return [suggestion for suggestion in suggestions if suggestion]


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
