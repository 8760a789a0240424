"""README.md's generated blocks: what the first command prints, and the reader's path."""

import difflib

import npgemma
from generated import ROOT
from generated.exercises import DOCUMENT, EXERCISES, anchor
from generated.sources import code


def first_output():
    """Return the first command and what it prints."""
    answer = npgemma.load().generate(npgemma.example_image())
    return f"```\n$ python cli.py\n{answer.text}\n```"


def path_table():
    """Return the files of the path in its order, with what each teaches."""
    rows = ["| file | lines of code | new or changed in the twin | teaches | try |", "|---|---:|---:|---|---|"]
    for each in EXERCISES:
        name, ours = each["file"], ROOT / "npgemma" / each["file"]
        twin = ROOT / "torch_ref" / ours.name
        differs = changed_lines(code(ours), code(twin)) if twin.exists() else "shared"
        attempt = f"[{each['try']}]({DOCUMENT}#{anchor(name)})"
        rows.append(f"| [`{name}`](npgemma/{name}) | {len(code(ours))} | {differs} | {each['teaches']} | {attempt} |")
    return "\n".join(rows)


def changed_lines(ours, theirs):
    """Count the lines of the twin that the reference does not have."""
    return sum(line[0] == "+" and line[:3] != "+++" for line in difflib.unified_diff(ours, theirs, n=0, lineterm=""))
