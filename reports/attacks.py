"""Hostile inputs over all readers and commands: ``python reports/attacks.py``; exits with 1 if there are findings.

`hostile` makes them. Each runs in a process and a folder of its own, with ten seconds and 3 GB; `judged` says what a
finding is. A run of all is kept in ``reports/attacks.json``, for the table of docs/robustness.md. Linux only.
"""

import argparse
import collections
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unicodedata

import samples
from hostile import EITHER, KINDS, OUTPUTS, REFUSED, SECRET

from npgemma.benchmarks.runs import stamp
from npgemma.command import guarded
from npgemma.command import main as npgemma_main

SECONDS, MEMORY, LETTERS = 10, 3e9, 4000
REPORT = pathlib.Path(__file__).parent / "attacks.json"
CASES = []  # of each a kind, a `hostile.Case` and the folder of valid files
Ended = collections.namedtuple("Ended", "kind case status seconds bytes out err new killed")


def called(words):
    """Run a command line in this process and return the exit status."""
    if words[0] == "python":
        return guarded(lambda: exec(words[1], {}))
    if words[0] == "conversion":
        from conversion.__main__ import main

        return main(words[1:])
    return npgemma_main(words)


def become(case, place):
    """Run a case in this process, a fork, and end it."""
    os.setpgid(0, 0)
    os.chdir(place / "folder")
    streams = [os.open(case.stdin, os.O_RDONLY)]
    streams += [os.open(place / name, os.O_WRONLY | os.O_CREAT) for name in ("out", "err")]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ |= {"TMPDIR": ".", "HF_HUB_CACHE": "cache", "PATH": f"{os.getcwd()}/bin:{os.environ['PATH']}"}
    tempfile.tempdir, sys.argv, status = None, ["npgemma"], 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (case.most_bytes, case.most_bytes))
    try:
        if case.words[0] == "-m":
            os.execv(sys.executable, [sys.executable, *case.words])
        status = called(case.words)
        sys.stdout.flush()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status or 0)


def stays(case, folder):
    """Say whether all that a case's options, or a conversion, may write lies in its folder, links followed."""
    options = {f"--{name.replace('_', '-')}" for name in OUTPUTS}
    paths = [word for before, word in itertools.pairwise(case.words) if before in options]
    paths += case.words[2:3] if case.words[0] == "conversion" else []
    # No system has a file whose name has a zero byte.
    real = (os.path.realpath(folder / path) for path in paths if "\0" not in path)
    return all(pathlib.Path(path).is_relative_to(os.path.realpath(folder)) for path in real)


def run(kind, case, home, place):
    """Run a case in a folder, with the files of ``home`` and its own, and return how it `Ended`."""
    shutil.copytree(home, place / "folder", copy_function=os.link, symlinks=True)
    case.make(place / "folder")
    if not stays(case, place / "folder"):
        raise ValueError(f"{case.name}: an attack may write in its own folder only")
    for name in ("out", "err"):
        (place / name).touch()
    before, start, killed, done, interrupt = _files(place), time.monotonic(), "", 0, case.interrupt or SECONDS
    if not (process := os.fork()):
        become(case, place)
    while not done:
        time.sleep(0.002)
        of = pathlib.Path(f"/proc/{process}")
        # Less the time in which it waited for a core that others kept.
        seconds = time.monotonic() - start - int((of / "schedstat").read_text().split()[1]) / 1e9
        resident = int((of / "statm").read_text().split()[1]) * resource.getpagesize()
        killed = "memory over" * (resident > MEMORY) or "time over" * (seconds > SECONDS)
        if killed or seconds > interrupt:
            os.kill(process, signal.SIGKILL if killed else signal.SIGINT)
            interrupt = SECONDS
        done, status, used = os.wait4(process, 0 if killed else os.WNOHANG)
    out, err = ((place / name).read_bytes().decode(errors="surrogateescape") for name in ("out", "err"))
    new, status = _files(place) - before, os.waitstatus_to_exitcode(status)
    return Ended(kind, case, status, seconds, used.ru_maxrss * 1024, out, err, new, killed)


def _files(place):
    paths = (path.relative_to(place / "folder") for path in (place / "folder").rglob("*"))
    return {str(path) for path in paths if "__pycache__" not in path.parts}


def judged(ended):
    """Yield what is wrong with how a case ended."""
    case, printed, refused = ended.case, ended.out + ended.err, ended.status in REFUSED
    if ended.killed or ended.bytes > MEMORY:
        yield ended.killed or "memory over"
        return
    yield from (word for word in ("Traceback (most recent call last)", SECRET) if word in printed)
    kinds = {unicodedata.category(letter) for letter in set(printed) - set("\n\t\u200c\u200d")}
    if kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        yield "a control character"
    if max(map(len, ended.err.splitlines()), default=0) > LETTERS or len(ended.out) > 100 * LETTERS:
        yield "no end"
    if ended.status not in case.must:
        yield f"exit status {ended.status}"
    if refused and not re.fullmatch(r"((error|note): .+\n)*error: .+\n((error|note): .+\n)*", ended.err):
        yield "a refusal that is not of the form error: ..., in one line"
    if case.says and (refused or case.must != EITHER) and not re.search(case.says, printed):
        yield f"does not say {case.says}"
    asked = ("out", *filter(None, case.words))
    if left := [path for path in ended.new if refused or not path.startswith(asked)]:
        yield f"leaves {left[0][:60]!a}"
    if "--json" in case.words and not refused:
        yield from _judged_json(ended.out, case.exact)


def _judged_json(printed, exact):
    try:
        found = [json.loads(line, parse_constant=int) for line in printed.splitlines()]
    except ValueError:
        yield "no JSON"
        return
    if exact and not any(document.get("image") == exact for document in found):
        yield "JSON is not exact"


def table(runs):
    """Return the figures of each kind."""
    rows = {}
    for kind in KINDS:
        those = [(ended, found) for ended, found in runs if ended.kind == kind]
        rows[kind] = {
            "inputs": len(those),
            "refused": sum(ended.status in REFUSED for ended, _ in those),
            "answered": sum(ended.status in (0, 1) for ended, _ in those),
            "findings": sum(bool(found) for _, found in those),
            "seconds": round(max((ended.seconds for ended, _ in those), default=0), 1),
            "megabytes": round(max((ended.bytes for ended, _ in those), default=0) / 1e6),
        }
    return rows


def work(number):
    """Run a case, in a process that was forked for it and others, and return how it ended, and what is wrong."""
    kind, case, home = CASES[number]
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        ended = run(kind, case, home, pathlib.Path(folder))
        return ended._replace(case=case.name, out="", err=ended.err[-300:]), list(judged(ended))


def main(arguments=None):
    """Print each finding, and the figures of each kind; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1e9, help="end after so many: a sample, of each kind alike")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="cases whose kind and name hold a text, and print all"
    )
    options, runs = parser.parse_args(arguments), []
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder) / "home"
        samples.make(home)
        (home / "tiny").symlink_to(samples.ROOT / "tiny")
        shutil.copy(samples.ROOT / "tiny" / "vae-oid.npz", home / "hub")
        kinds = [[(kind, case, home) for case in make(home)] for kind, make in KINDS.items()]
        found = itertools.chain(
            *itertools.zip_longest(*(random.Random(0).sample(cases, len(cases)) for cases in kinds))
        )
        CASES[:] = [each for each in found if each and options.only in f"{each[0]}: {each[1].name}"]
        end = time.monotonic() + options.seconds
        with multiprocessing.get_context("fork").Pool() as pool:
            for ended, found in pool.imap_unordered(work, range(len(CASES))):
                runs.append((ended, found))
                if found or options.only:
                    print(f"{ended.kind}: {ended.case}: {', '.join(found)} [{ended.status}] {ended.err!a}", flush=True)
                if time.monotonic() > end:
                    break
    rows = table(runs)
    for kind, row in rows.items():
        print(f"{kind:42}", *(f"{value:6} {name}" for name, value in row.items()))
    if len(runs) == len(CASES) and not options.only:
        REPORT.write_text(json.dumps(stamp() | {"kinds": rows}, indent=1) + "\n")
    return int(any(found for _, found in runs))


if __name__ == "__main__":
    sys.exit(main())
