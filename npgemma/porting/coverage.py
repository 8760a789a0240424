"""Which of a port's arrays are known, and which of ours the port shows: to be read before any verdict."""

import dataclasses
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

# All orders of axes are tried of no larger arrays.
MOST_ENTRIES = 2**22
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
    idle: list[str]  # rules that lead from no array of the port's to one of ours, in words

    @property
    def found(self) -> dict[str, np.ndarray]:
        """The port's arrays that fit, under our names and in our layouts."""
        return {name: pair.found for name, pair in self.pairs.items() if pair.found is not None}

    @property
    def shown(self) -> dict[str, np.ndarray]:
        """All of the port's arrays under our names, those that fit in our layouts."""
        return {name: pair.shown for name, pair in self.pairs.items()}

    @property
    def misfits(self) -> dict[str, str]:
        """Why arrays do not fit, under our names."""
        return {name: pair.misfit for name, pair in self.pairs.items() if pair.misfit}

    def counts(self):
        """Return the coverage as numbers: the one count of all that is printed."""
        groups = {"known": self.known, "unseen": self.unseen, "misfits": self.misfits}
        ports = {pair.port for pair in self.pairs.values()}
        return {
            "arrays": len(self.found),
            "kinds": len(set(map(kind, self.found))),
            **{group: len(names) for group, names in groups.items()},
            **{f"{group}_kinds": len(set(map(kind, names))) for group, names in groups.items()},
            "port_arrays": len(ports) + len(self.unknown),
            "unknown": len(self.unknown),
            "unknown_kinds": len(set(map(port_kind, self.unknown))),
            "idle_rules": len(self.idle),
            "logits": sum(name.endswith(("/logit_BV", "/logit_BTV")) for name in self.found),
        }


def port_kind(name: str) -> str:
    """Return a port's name without its numbers."""
    return re.sub(r"\d+", "*", name)


def cover(reference: Reference, port: dict[str, np.ndarray], rules: Sequence[Rule] = ()) -> Coverage:
    """Find our array for each of a port's, which has its own names; a name that no rule knows may be ours."""
    entries, unknown, used = reference.entries, {}, set()
    unordered: dict[str, Pair] = {}
    if len(port) * len(rules) > MOST_MATCHES:
        raise InputError(f"{len(port)} arrays are too many for {len(rules)} rules: write fewer, or {{i}} for numbers")
    for name, raw in port.items():
        matches = [(rule, ours) for rule in rules if (ours := rule.match(name)) in entries]
        if not matches and name in entries:
            matches = [(Rule(name, name), name)]
        used |= {(rule.port, rule.ours) for rule, _ in matches}
        # Of two arrays for one of ours the first is compared.
        first = {ours: rule for rule, ours in matches if ours not in unordered}
        unordered |= {ours: _pair(reference, rule, ours, name, raw) for ours, rule in first.items()}
        if not first:
            unknown[name] = raw
    pairs = {name: unordered[name] for name in entries if name in unordered}
    for name, pair in pairs.items():
        if name.endswith("ids_BT"):
            told = f"the port's {shown(pair.port, 80)}"
            ids = given_tokens.row_of(pair.shown, told)
            if reference.model:
                given_tokens.check(ids, reference.model, told)
    first_names = {entries[name].same_as or name for name, pair in pairs.items() if not pair.misfit}
    rest = [name for name in entries if name not in pairs]
    known = [name for name in rest if (entries[name].same_as or name) in first_names]
    idle = [_idle(rule, port) for rule in rules if (rule.port, rule.ours) not in used]
    return Coverage(pairs, known, [name for name in rest if name not in set(known)], unknown, idle)


def _idle(rule, port):
    """Say why a rule found nothing."""
    ours = next((found for name in port if (found := rule.match(name))), None)
    return f"{rule.port}: " + (f"there is no {ours} here" if ours else "the port has no such array")


def _pair(reference, rule, ours, name, raw):
    expected, letters = reference.arrays[ours], reference.entries[ours].axes
    if ours.endswith("ids_BT") and reference.model:
        text = text_alone(raw, reference.model.config.image_token)
        rule, raw = rule if text is raw else dataclasses.replace(rule, axes="BT", take={}), text
    if rule.axes is None and 0 < raw.ndim == expected.ndim - 1 and expected.shape[0] == 1:
        rule = dataclasses.replace(rule, axes=letters[1:])  # the batch is left out
    try:
        return Pair(ours, name, expected, raw, rule.convert(raw, letters, expected.shape), None)
    except Misfit as problem:
        fitting = next(layouts(raw.shape, letters, expected.shape), None)
        would = f'; by its shape, axes = "{fitting}" would fit' if fitting else ""
        return Pair(ours, name, expected, raw, None, f"{problem}{would}")


def text_alone(raw, image_token):
    """Drop image tokens from a row of ids, by value: a part of the row would be as long as ours whatever the prompt."""
    text = raw[raw != image_token]
    return text[None] if 0 < text.size < raw.size else raw


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
