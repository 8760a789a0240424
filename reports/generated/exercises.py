"""Runs the exercises of the reader's path, for docs/exercises.md.

Each change is made in a copy of the package, and what it prints is kept with the answer, folded.
"""

import contextlib
import functools
import io
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib

from generated import ROOT

DOCUMENT = "docs/exercises.md"
EXERCISES = tomllib.loads(pathlib.Path(__file__).with_suffix(".toml").read_text())["exercise"]
# What runs in the copy: these packages are imported anew for every run, the libraries only once.
PACKAGES = ("npgemma", "conversion")
INTRODUCTION = """\
# Exercises

One for each file of the reader's path. Think of an answer first; then make the change (`git checkout npgemma` takes it
back), run what stands below it, and unfold what was printed here and why. All of it is the embedded
checkpoint with the example image. `python reports/readme.py` runs them all and writes this page.
"""


def anchor(file):
    """Return what GitHub makes of a file's name as a headline."""
    return re.sub(r"[^\w-]", "", file)


@functools.cache
def run_all() -> list[list[tuple[str, str]]]:
    """Run the exercises in a process of their own; return for each, and each of its runs, what is printed.

    That is before and after the change; without a change twice the same.
    """
    command, folder = [sys.executable, "-m", "generated.exercises"], ROOT / "reports"
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def _run_all():
    """Run exercises in this process."""
    with tempfile.TemporaryDirectory() as folder:
        copy, before = pathlib.Path(folder), {}
        for package in PACKAGES:
            shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "tiny").symlink_to(ROOT / "tiny")
        sys.path.insert(0, folder)
        sys.dont_write_bytecode, sys.argv[0] = True, "cli.py"
        found = []
        for exercise in EXERCISES:
            for run in exercise["run"]:
                before[run] = before.get(run) or printed(run)
            with changed(copy, exercise):
                after = [printed(run) if "change" in exercise else before[run] for run in exercise["run"]]
            found.append([(before[run], now) for run, now in zip(exercise["run"], after)])
        return found


@contextlib.contextmanager
def changed(folder, exercise):
    """Exchange an exercise's lines in a copy of the project while a ``with`` block runs."""
    path = folder / "npgemma" / exercise["file"]
    text = source = path.read_text()
    for old, new in exercise.get("change", ()):
        assert source.count(f"{old}\n") == 1, f"{exercise['file']} should have one line: {old}"
        source = source.replace(f"{old}\n", f"{new}\n")
    path.write_text(source)
    yield
    path.write_text(text)


def printed(run):
    """Return what a command of cli.py, or Python code, prints."""
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    out = Kept()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        if run.startswith("python cli.py"):
            from npgemma.command import main

            main(shlex.split(run)[2:])
        else:
            exec(compile(run, "exercise", "exec"), {})
    return out.getvalue().rstrip("\n")


class Kept(io.StringIO):
    """Keeps what is printed, as a stream that the commands can set up."""

    def reconfigure(self, **settings):
        """Take the settings of a terminal, which do not matter here."""


def section(exercise, outputs):
    """Lay out an exercise, with its answer folded."""
    lines = [f"## {exercise['file']}", "", exercise["ask"].strip(), ""]
    if "change" in exercise:
        lines += [f"In [`npgemma/{exercise['file']}`](../npgemma/{exercise['file']}):", "", "```diff"]
        lines += [f"{sign}{line}" for old, new in exercise["change"] for sign, line in (("-", old), ("+", new))]
        lines += ["```", ""]
    for run in exercise["run"]:
        lines += ["```sh" if run.startswith("python") else "```python", run.strip(), "```", ""]
    lines += ["<details><summary>What is printed, and why</summary>", ""]
    for run, (before, after) in zip(exercise["run"], outputs):
        command = [f"$ {run}"] if run.startswith("python") else []
        lines += ["```", *command, *both(before, after, exercise), "```", ""]
    return "\n".join([*lines, exercise["why"].strip(), "", "</details>", ""])


def both(before, after, exercise):
    """Lay out what is printed, before and after a change."""
    if "change" not in exercise:
        return [before]
    return ["before:", before or "(nothing)", "after:", after or "(nothing)"]


def page():
    """Run every exercise and return docs/exercises.md."""
    return "\n".join([INTRODUCTION, *map(section, EXERCISES, run_all())])


if __name__ == "__main__":
    print(json.dumps(_run_all()))
