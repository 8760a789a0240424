"""The blocks of docs/porting.md: what its first commands print, and the bounds of parity."""

import contextlib
import re
import shlex
import tempfile

from generated import ROOT
from generated.exercises import Kept
from generated.sources import report
from npgemma.command import main
from npgemma.porting.bounds import BOUNDS


def walk():
    """Return the commands of docs/porting.md's first part, which lead to a named mistake."""
    part = (ROOT / "docs/porting.md").read_text().partition("## Ten minutes")[2].partition("\n## ")[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", part, re.S) for line in block.splitlines()]
    return [line.partition("  #")[0] for line in lines]


def walk_output():
    """Return what ``compare`` says in docs/porting.md, without lines, and without rounding that differs."""
    with tempfile.TemporaryDirectory() as folder:
        for line in walk()[:2]:
            said = command(line, folder)
    kept = [line for line in said.splitlines() if "past their budgets" not in line]
    said = re.sub(r"\.py:\d+", ".py:...", "\n".join(kept))
    text = re.sub(r" \(\d\.\d+e[-+]\d+\)$", "", said, flags=re.M)
    rounding = r"(arrays) +\S+( +\S+) +\d{1,2}  \S+$"  # below the limit: of another array on another machine
    return "```\n" + re.sub(rounding, r"\1           ...\2           ...", text, flags=re.M) + "\n```"


def command(line, folder):
    """Run a line of a document, ``python cli.py ...``, in a folder; return what it prints."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(Kept()) as out, contextlib.redirect_stderr(Kept()):
        main(shlex.split(line)[2:])
    return out.getvalue()


def bounds_table():
    """Return the bounds of parity beside the largest difference of the embedded checkpoint."""
    rows = ["| dtype | bound | largest of a whole answer | arrays | where |", "|---|---:|---:|---:|---|"]
    for dtype, measured in report("parity").items():
        worst = measured["worst"]
        largest, where = worst["relative_l2"], worst["worst"]
        rows.append(f"| {dtype} | {BOUNDS[dtype]:g} | {largest:.1e} | {measured['arrays']} | `{where}` |")
    return "\n".join(rows)
