"""Rules suggested for a port's arrays that no rule knows: by their values, or guessed by shape, name and order."""

import difflib
import itertools
import json
import math
import re
from typing import Any

from npgemma.porting.arrange import Misfit, arrange, layouts
from npgemma.porting.bounds import ALIKE
from npgemma.porting.coverage import MOST_ENTRIES, Coverage, text_alone
from npgemma.porting.difference import difference
from npgemma.porting.name_map import Rule
from npgemma.porting.reference import Reference

# Kinds of arrays that are looked at, arrays of each, and letters of a name.
MOST_KINDS, MOST_ARRAYS, MOST_LETTERS = 200, 4, 200
# What is nearest by value must be this many times as near as any other array.
NEARER = 2
PASS, BLOCK = re.compile(r"^(prefill\.0|step\.\d+)/", re.ASCII), re.compile(r"\bblock\.\d+")


def suggest(reference: Reference, coverage: Coverage) -> list[dict[str, Any]]:
    """Suggest rules for the port's arrays that no rule knows, one for each kind of them.

    A suggestion has ``port``, ``ours`` and ``axes`` of a rule, with ``{i}`` and ``{pass}``; ``error``, the relative L2
    error of its first array; and ``by``: ``value`` if no other array of ours is about as near, otherwise ``guess``.
    """
    unseen = dict.fromkeys(PASS.sub("{pass}/", name) for name in coverage.unseen)
    templates = dict.fromkeys(BLOCK.sub("block.{i}", name) for name in unseen)
    kinds = itertools.islice(_kinds(coverage.unknown).items(), MOST_KINDS)
    found = []
    for (port, numbered), names in kinds:
        chosen = sorted(names)[:: -(-len(names) // MOST_ARRAYS)]  # the prefill's first block among them
        arrays = {name: coverage.unknown[name] for name in chosen}
        rules = [Rule(numbered, ours) for ours in templates if numbered and "{i}" in ours]
        rules += [Rule(port, ours) for ours in (templates if numbered else unseen) if port and "{i}" not in ours]
        candidates = [each for rule in rules for each in _measured(reference, rule, arrays)]
        found += [_best(candidates)] if candidates else []
    known = [suggestion for suggestion in found if math.isfinite(suggestion["error"])]
    return sorted(known, key=lambda suggestion: suggestion["by"] == "guess")


def _kinds(unknown):
    """Group names that differ in the pass in front and in one number, that which differs most. A key is the name, if
    there is one alone, and the name with ``{i}`` for the number, if there is one.
    """
    alike, kinds = {}, {}
    for name in unknown:
        if name.isprintable() and len(name) <= MOST_LETTERS and "{" not in name:
            alike.setdefault(re.sub(r"\d+", "*", PASS.sub("", name)), []).append(name)
    for names in alike.values():
        words = [re.split(r"(\d+)", PASS.sub("", name)) for name in names]
        varied = [len({row[column] for row in words}) for column in range(1, len(words[0]), 2)]
        column = 2 * varied.index(max(varied)) + 1 if varied else None
        for name, row in zip(names, words):
            numbered = column and "".join([*row[:column], "{i}", *row[column + 1 :]])
            plain = None if column and max(varied) > 1 else "".join(row)
            kinds.setdefault((plain, numbered), []).append(name)
    return kinds


def _measured(reference, rule, arrays):
    """Yield, for each layout in which all arrays fit under a rule, minus how many are near, the first one's error, and
    the rule.
    """
    pairs = []
    for name, raw in arrays.items():
        ours = rule.match(name)
        expected = reference.arrays.get(ours)
        if expected is None:
            return
        if ours.endswith("ids_BT") and reference.model:
            raw = text_alone(raw, reference.model.config.image_token)
        if not raw.size == expected.size <= MOST_ENTRIES or (raw.dtype.kind == "f") != (expected.dtype.kind == "f"):
            return
        pairs.append((expected, raw))
    letters, (expected, raw) = reference.entries[ours].axes, pairs[0]
    for axes in layouts(raw.shape, letters, expected.shape) if raw.size > 1 else []:
        try:
            errors = [difference(one, arrange(other, axes, letters, one.shape)).relative_l2 for one, other in pairs]
        except Misfit:
            continue
        # A mistake goes on to later blocks and passes: where the first array differs, others are near by chance.
        near = sum(error <= ALIKE for error in errors) if errors[0] <= ALIKE else 0
        yield -near, errors[0], rule.port, rule.ours, axes


def _best(candidates):
    """Return the suggestion of a kind: most arrays near, then the nearest, then the most alike by name."""
    alike = {ours: difflib.SequenceMatcher(None, port, ours).ratio() for _, _, port, ours, _ in candidates}
    ranked = sorted(candidates, key=lambda each: (*each[:2], -alike[each[3]]))
    near, error, port, ours, axes = ranked[0]
    rival = next((each[1] for each in ranked if each[0] == near and each[1] != error), ALIKE * NEARER)
    by = "value" if near and rival >= NEARER * error else "guess"
    return {"port": port, "ours": ours, "axes": axes, "error": error, "by": by}


def as_toml(suggestions: list[dict[str, Any]], extends: str | None = None) -> str:
    """Return suggestions as a map: a rule for each that goes by value, a comment for each guess."""
    text = f"extends = {json.dumps(extends, ensure_ascii=False)}\n\n" if extends else ""
    # A port that is wrong has other values from its mistake on.
    text += "# Rules for arrays whose values agree; where a port is wrong there is none. Look at the first guess.\n\n"
    for found in suggestions:
        name, guess = json.dumps(found["port"], ensure_ascii=False), found["by"] == "guess"
        rule = f'[[{name}]]\nours = "{found["ours"]}"\naxes = "{found["axes"]}"'
        text += f"# {'A guess, the values differ' if guess else 'By value'}: relative L2 {found['error']:.1e}.\n"
        text += (re.sub("^", "# ", rule, flags=re.M) if guess else rule) + "\n\n"
    return text
