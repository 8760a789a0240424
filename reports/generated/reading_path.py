"""README.md's generated blocks: what the first command prints, and the reader's path."""

import difflib

import npgemma
from generated import ROOT
from generated.exercises import DOCUMENT, EXERCISES, anchor
from generated.sources import code

BACKWARD = [each for each in EXERCISES if each["file"].startswith("backward/")]
LEARNING = (
    "the model's functions once more, backwards, and a step; [`overfit.py`](examples/overfit.py) learns four answers "
    "by heart"
)


def first_output():
    """Return the first command and what it prints."""
    answer = npgemma.load().generate(npgemma.example_image())
    return f"```\n$ python cli.py\n{answer.text}\n```"


def path_table():
    """Return the files of the path in its order, with what each teaches."""
    rows = ["| file | lines of code | of them changed in the twin | teaches | try |", "|---|---:|---:|---|---|"]
    for each in EXERCISES[: -len(BACKWARD)]:
        name, ours = each["file"], ROOT / "npgemma" / each["file"]
        differs = len(changed_lines(name)) if (ROOT / "torch_ref" / ours.name).exists() else "shared"
        attempt = f"[{each['try']}]({DOCUMENT}#{anchor(name)})"
        rows.append(f"| [`{name}`](npgemma/{name}) | {len(code(ours))} | {differs} | {each['teaches']} | {attempt} |")
    lines = sum(len(code(ROOT / "npgemma" / each["file"])) for each in BACKWARD)
    names = ", ".join(f"[`{each['file']}`](npgemma/{each['file']})" for each in BACKWARD)
    attempt = f"[{BACKWARD[0]['try']}]({DOCUMENT}#{anchor(BACKWARD[0]['file'])})"
    rows.append(f"| *how it learns:* {names} | {lines} | torch's autograd | {LEARNING} | {attempt} |")
    return "\n".join(rows)


def changed_lines(name):
    """Return the lines of code that the twin of a file has otherwise than the reference."""
    path = ROOT / "npgemma" / name
    lines = difflib.unified_diff(code(path), code(ROOT / "torch_ref" / path.name), n=0)
    return [line[1:] for line in lines if line[0] == "+" and line[:3] != "+++"]
