"""Lays out reports/mistakes.json as docs/mistakes.md."""

import functools
import json

from mistakes import (
    CHECKPOINTS,
    DTYPES,
    ONE_WAY,
    RANDOM_2,
    RESULTS,
    TESTS,
    around,
    array_cases,
    array_key,
    golden_cases,
    golden_key,
    named,
    possible,
    test_key,
    ways_of,
)
from witnesses import NUMPY, ROOT, TWIN

from npgemma.porting import mistakes as library
from npgemma.porting.diagnosis.naming import NEAR_ONE, RIGHT_IF_NARROW, SURE, VISIBLE, stands_out
from npgemma.porting.mistakes import MISTAKES

DOCUMENT = "docs/mistakes.md"
INTRODUCTION = (ROOT / "reports" / "mistakes.md").read_text()
END_TO_END, OWN, PROJECTION, NOTHING = "end to end", "own", "z", "not"
SIDES = {NUMPY: "NumPy", TWIN: "twin"}
# Of what `diagnose --logits` says, the weakest first.
VERDICTS = ("not", "seen", "as", "one of", "named")
# A mistake must not hide in the margin of the goldens' bound.
SURE_GOLDENS = 2
PARTS = {
    "Inputs": library.preprocessing,
    "Vision tower, and where image and text meet": library.vision,
    "Decoder and cache": library.decoder,
    "PaliGemma 2": library.gemma2_only,
    "Answer and sampling": library.output,
    "Conversion": library.weight_layout,
}


def load():
    """Return the results."""
    return json.loads(RESULTS.read_text())


def number(value):
    """Write a figure with two or three digits."""
    return f"{value:.1e}".replace("e+0", "e").replace("e+", "e") if value >= 1000 else f"{value:.3g}"


def seen(entry, id, dtype):
    """Return the first witness that sees a mistake in arrays, and its figure; an array's name has none.

    Parameters
    ----------
    entry : dict
        From `witnesses.in_arrays`.
    id : str or None
    dtype : str

    Returns
    -------
    (str, float or str)
    """
    if entry["end_to_end"] > 1:
        return END_TO_END, entry["end_to_end"]
    if entry["unequal"]:
        return END_TO_END, entry["unequal"].rpartition("/")[2]
    if entry["wrong"]:
        return OWN, entry["own"]
    c, z, visible = (entry.get(key) or 0.0 for key in ("c", "z", "visible"))
    if stands_out(c, z, visible) and not right_if_narrow(id, dtype):
        return PROJECTION, z
    return NOTHING, reason(entry, id, dtype)


def right_if_narrow(id, dtype):
    """Say whether a right program does the same."""
    return dtype == "bfloat16" and id in RIGHT_IF_NARROW


def reason(entry, id, dtype):
    """Say why nothing is seen in arrays."""
    if id is None:
        return "right"
    if right_if_narrow(id, dtype):
        return "right in bfloat16"
    visible = entry.get("visible") or 0.0
    if visible == 0:
        return MISTAKES[id].unseen or "changes nothing here"
    if visible < VISIBLE:
        return f"below rounding (z would be {visible:.1g})"
    return f"below rounding (c is {entry['c']:.2g})"


def said(witness, figure):
    """Write what one witness sees."""
    if witness == NOTHING:
        return f"not: {figure}"
    if isinstance(figure, str):
        return f"{witness} `{figure}`"
    unit = {END_TO_END: " x", OWN: " %", PROJECTION: ""}[witness]
    return f"{witness} {number(figure)}{unit}"


def array_cell(entries, id, dtype):
    """Write what is seen in arrays: once if port and twin agree in the witness.

    Parameters
    ----------
    entries : dict of str to dict
        By side.
    id, dtype : str

    Returns
    -------
    str
    """
    found = {side: seen(entry, id, dtype) for side, entry in entries.items()}
    if len({witness for witness, _ in found.values()}) == 1:
        figures = [figure for _, figure in found.values()]
        numbers = [figure for figure in figures if not isinstance(figure, str)]
        return said(next(iter(found.values()))[0], min(numbers) if len(numbers) == len(figures) else figures[-1])
    return "; ".join(f"{SIDES[side]} {said(*what)}" for side, what in found.items())


def logits_cell(by_dtype):
    """Write what the logits say, the weaker of port and twin; once if all dtypes agree."""

    def rank(verdict):
        return next(i for i, word in enumerate(VERDICTS) if verdict.startswith(word))

    words = [min((entry["logits"] for entry in entries.values()), key=rank) for entries in by_dtype.values()]
    return words[0] if len(set(words)) == 1 else ", ".join(words)


def witnesses_of_both(results, id, way, gemma2):
    """Write what sees a mistake that port and twin share, or return None.

    Parameters
    ----------
    results : dict
    id : str
    way : int
    gemma2 : bool
        Of PaliGemma 2. What both families run is seen by the goldens of either.

    Returns
    -------
    str or None
    """
    own_code = any(name.startswith("gemma2.") for name in MISTAKES[id].ways[way])
    families = [family for family in (False, True) if family == gemma2 or not own_code]
    figures = []
    for family in families:
        keys = [golden_key(id, way, side, family) for side in (NUMPY, TWIN)]
        if all(key in results["goldens"] for key in keys):
            given = [results["goldens"][key] for key in keys]
            figures.append(None if None in given else min(given))
    if any(figure is not None and figure > SURE_GOLDENS for figure in figures):
        return f"goldens {number(max(figure for figure in figures if figure is not None))} x"
    if None in figures:
        return "goldens: answers of other lengths"
    test = TESTS.get(id)
    if test and results["tests"][test_key(id, way, test)]:
        file, _, name = test.partition("::")
        return f"[`{name}`](../{file})"
    return None


@functools.cache
def grouped():
    """Return the sides of all cases of arrays, by (checkpoint, id, way) and dtype."""
    found = {}
    for name, id, way, dtype, side in array_cases():
        found.setdefault((name, id, way), {}).setdefault(dtype, []).append(side)
    return found


def row(results, name, id, way):
    """Write the row of a mistake on a checkpoint."""
    by_dtype = {
        dtype: {side: results["arrays"][array_key(name, id, way, dtype, side)] for side in sides}
        for dtype, sides in grouped()[name, id, way].items()
    }
    cells = [array_cell(entries, id, dtype) for dtype, entries in by_dtype.items()]
    both = witnesses_of_both(results, id, way, name == RANDOM_2) or "**nothing**"
    return f"| `{id}`{way_of(way)} | {name} | {' | '.join(cells)} | {logits_cell(by_dtype)} | {both} |"


def way_of(way):
    """Return the number of a way, from 1, where it is not the usual one."""
    return f", way {way + 1}" if way else ""


def part(results, title, module):
    """Write the table of one part of the library."""
    rows = []
    for mistake in module.MISTAKES:
        for way in ways_of(mistake.id):
            if around(mistake.id):
                both = witnesses_of_both(results, mistake.id, way, False) or "**nothing**"
                rows.append(f"| `{mistake.id}` | any |{' no array |' * 3} {mistake.unseen} | {both} |")
                continue
            names = [name for name in CHECKPOINTS if possible(mistake.id, name == RANDOM_2)]
            rows += [row(results, name, mistake.id, way) for name in names]
    head = [
        "| mistake | checkpoint | float64 | float32 | bfloat16 | logits | in both |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([f"## {title}", "", *head, *rows, ""])


def right_table(results):
    """Write what the witnesses say of right programs: the control."""
    rows = ["| no mistake | end to end | own | logits |", "|---|---:|---:|---|"]
    for name in CHECKPOINTS:
        for dtype in DTYPES:
            entries = [results["arrays"][array_key(name, None, 0, dtype, side)] for side in (NUMPY, TWIN)]
            largest = (number(max(entry[what] for entry in entries)) for what in ("end_to_end", "own"))
            apart, own = largest
            rows.append(f"| {name}, {dtype} | {apart} x | {own} % | {logits_cell({dtype: dict(enumerate(entries))})} |")
    goldens = [results["goldens"][golden_key(*case)] for case in golden_cases() if case[0] is None]
    rows += ["", f"The goldens of right programs: at most {number(max(goldens))} x."]
    return "\n".join(rows)


def summary(results):
    """Count which witness is the first to see how many mistakes, by dtype and side."""
    rows = [
        "| made in | ways x checkpoints | first seen end to end | own | z | not | own errors alone |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for dtype in DTYPES:
        for side in (NUMPY, TWIN):
            cases = [case for case in array_cases() if case[1] and case[3:] == (dtype, side)]
            entries = [results["arrays"][array_key(*case)] for case in cases]
            found = [seen(entry, case[1], dtype)[0] for case, entry in zip(cases, entries)]
            counts = [len(cases), *(found.count(witness) for witness in (END_TO_END, OWN, PROJECTION, NOTHING))]
            counts.append(sum(bool(entry["wrong"]) for entry in entries))
            rows.append(f"| {SIDES[side]}, {dtype} | {' | '.join(map(str, counts))} |")
    return "\n".join(rows)


def uncaught(results):
    """Return the mistakes that no witness sees if port and twin share them: each is a missing test."""
    cases = [
        (id, way, gemma2) for id in MISTAKES for way in ways_of(id) for gemma2 in (False, True) if possible(id, gemma2)
    ]
    return [named(id, way) for id, way, gemma2 in cases if witnesses_of_both(results, id, way, gemma2) is None]


def document(results):
    """Return docs/mistakes.md."""
    words = {"one_way": ", ".join(f"`{id}`" for id in ONE_WAY), "sure": SURE, "near": NEAR_ONE, "visible": VISIBLE}
    parts = [part(results, title, module) for title, module in PARTS.items()]
    return "\n".join([INTRODUCTION.format(**words), summary(results), "", right_table(results), "", *parts])


def write():
    """Write the page."""
    (ROOT / DOCUMENT).write_text(document(load()))
