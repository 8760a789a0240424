"""Runs of programs, each in a process of its own, in turn; named like ``"torch bfloat16 --static"``.

Before a load is timed, its process imports what it needs, reads the files, and then touches as much memory as the
weights in float32 need: a virtual machine that must first be given memory waits for it longer than loading takes
otherwise, and which program meets that would depend on what ran before. The memory is touched last, since such a
machine takes back within seconds what lies idle.
"""

import concurrent.futures
import datetime
import multiprocessing
import pathlib
import re
import statistics
import subprocess
import time

import numpy as np

from npgemma.fast import threads


def parts(run):
    """Return a run's program, dtype and flags.

    >>> parts("Hugging Face float32"), parts("torch bfloat16 --static")
    (('Hugging Face', 'float32', []), ('torch', 'bfloat16', ['--static']))
    """
    program, dtype, flags = re.fullmatch(r"(.+?) (\w+\d+)(.*)", run).groups()
    return program, dtype, flags.split()


def touch(folder):
    """Read the files; then twice write as much memory as the weights in float32 need, and return how long it took."""
    from conversion.folder import describe

    for path in pathlib.Path(folder).glob("*.safetensors"):
        with open(path, "rb") as file:
            while file.read(2**24):
                pass
    parameters = describe(folder)["parameters"]

    def write():
        """Write new memory, on all cores; return the time."""
        start = time.perf_counter()
        numbers = np.empty(parameters, dtype=np.float32)
        threads.split(lambda first, last: numbers[first:last].fill(1), parameters, threads.even(parameters, 2**24))
        return time.perf_counter() - start

    write()
    return write()


def apart(function, *arguments):
    """Call a function in a new process, whose peak of memory is its own; return what it returns."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(function, *arguments).result()


def in_turn(measure, runs, rounds, *arguments):
    """Call ``measure(run, *arguments)`` for all runs, in so many rounds, each in a process of its own.

    After each call yield the run, and the list of what was measured of it in the rounds so far.
    """
    found = {run: [] for run in runs}
    for _ in range(rounds):
        for run, measured in found.items():
            measured.append(apart(measure, run, *arguments))
            yield run, measured


def middle(rounds):
    """Return the median of every figure.

    >>> middle([{"load": load, "least": {"token": load / 2}} for load in (3, 9, 4)])
    {'load': 4, 'least': {'token': 2.0}}
    """
    if not isinstance(rounds[0], dict):
        return statistics.median(rounds)
    return {what: middle([found[what] for found in rounds]) for what in rounds[0]}


def stamp():
    """Return day and commit of a measurement; a copy without its history does not know the commit."""
    asked = ["git", "-C", pathlib.Path(__file__).parent, "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip() or "unknown"
    return {"date": str(datetime.date.today()), "commit": commit}
