"""What do readers say of damaged files? ``python reports/mutants.py [--count N] [--seed S] [--jobs J] [--only I]``.

Damages a small valid file (`samples.py`) at random and reads it as its command does; mutant I of seed S is always the
same. A finding is what is neither read nor refused by an `InputError` of one sentence that names the file: another
exception, a warning, a library's text on the terminal, more than ten seconds, a process that ends. A process has 3 GB.
``--keep DIR`` keeps the files of findings, and with ``--only I`` those of mutant I.
"""

import argparse
import collections
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings

import numpy as np

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]

import samples  # noqa: E402
from damage import damaged  # noqa: E402

from npgemma.errors import InputError  # noqa: E402
from npgemma.files.foreign import HIDDEN  # noqa: E402

# Seconds of a processor; a process that waits, on a busy machine too, has this many times as long.
SECONDS, WAITING = 10, 12
BYTES, LETTERS = 3 * 10**9, 2000
GOOD = "read", "refused"


def drawn(seed, number, home):
    """Return a mutant's reader, the valid file that it damages, and its content."""
    draw = random.Random(f"{seed}/{number}")
    reader = draw.choice([name for name in samples.READERS if name not in samples.SLOW or draw.random() < 0.1])
    files = sorted(file for file in (home / reader).rglob("*") if file.is_file() and samples.SOUND not in file.parts)
    file = draw.choice(files)
    others = [other for other in files if other.suffix == file.suffix or draw.random() < 0.1]
    return reader, file, damaged(draw, file.name, file.read_bytes(), draw.choice(others).read_bytes())


def outcome(seed, number, home):
    """Write a mutant into a folder of its number and read it; return its reader, and ``read``, ``refused`` or more."""
    reader, valid, content = drawn(seed, number, home)
    folder = shutil.copytree(home / reader, home / str(number), copy_function=os.link)
    file = folder / valid.relative_to(home / reader)
    file.unlink()
    file.write_bytes(content)
    # As on the command line, the model may meet what is not finite, and says so itself.
    with warnings.catch_warnings(record=True) as warned, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            samples.READERS[reader](folder, file)
        except InputError as problem:
            fault = _fault(str(problem), folder, file)
            return reader, f"{fault} {_place(problem)}: {str(problem)[:300]!r}" if fault else "refused"
        except Exception as problem:
            return reader, f"{type(problem).__name__} {_place(problem)}: {str(problem)[:300]!r}"
    return reader, f"a warning, {warned[0]}" if warned else "read"


def _fault(message, folder, file):
    if HIDDEN.search(message):
        return "a message with control characters"
    if len(message) > LETTERS:
        return f"a message of {len(message)} letters"
    return "" if file.name in message or str(folder) in message else "a message without the file's name"


def _place(problem):
    """Return the last line of the project that an exception came through."""
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if str(samples.ROOT) in frame.filename]
    return f"at {os.path.relpath(frames[-1].filename, samples.ROOT)}:{frames[-1].lineno}"


def _work(numbers, seed, home, results, log):
    """Send the outcome of each mutant; run in a process of its own, whose output goes to the file ``log``."""
    own = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + BYTES, own + BYTES))
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    faulthandler.enable(log)
    faulthandler.register(signal.SIGPROF, log, chain=True)
    for number in numbers:
        # Either ends the process, even inside a library that does not return, and writes where it was.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        faulthandler.dump_traceback_later(WAITING * SECONDS, exit=True, file=log)
        reader, found = outcome(seed, number, home)
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        if found in GOOD and os.fstat(2).st_size:
            found = f"printed: {pathlib.Path(log.name).read_text(errors='replace')[:300]!r}"
        results.send((number, reader, found))
        log.truncate(0)


def outcomes(numbers, seed, home, jobs):
    """Yield number, reader and outcome of each mutant, from processes that are replaced where one ends."""
    fork, workers = multiprocessing.get_context("fork"), {}

    def start(left, log):
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=_work, args=(list(left), seed, home, sender, log))
        process.start()
        sender.close()
        workers[receiver] = process, left, log

    for job in range(jobs):
        start(collections.deque(numbers[job::jobs]), open(home / f"log-{job}", "a+"))  # noqa: SIM115 for a process
    while workers:
        for receiver in multiprocessing.connection.wait(list(workers)):
            process, left, log = workers[receiver]
            try:
                yield receiver.recv()
                left.popleft()
                continue
            except EOFError:
                process.join()
                del workers[receiver]
            if left:
                said, number = pathlib.Path(log.name).read_text(errors="replace"), left.popleft()
                yield number, drawn(seed, number, home)[0], f"the process ended with {process.exitcode}: {said[:2000]}"
                log.truncate(0)
                start(left, log)


def main(arguments=None):
    """Print each finding, then how many mutants of each reader were read and refused; return how many findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=29, metavar="S")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="J")
    parser.add_argument("--only", type=int, metavar="I")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR")
    options = parser.parse_args(arguments)
    numbers = range(options.count) if options.only is None else [options.only]
    table = {reader: collections.Counter() for reader in samples.READERS}
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        samples.make(home)
        for number, reader, found in outcomes(numbers, options.seed, home, min(options.jobs, len(numbers))):
            table[reader][found if found in GOOD else "findings"] += 1
            if found not in GOOD or options.only is not None:
                file = drawn(options.seed, number, home)[1].relative_to(home)
                print(f"mutant {number} of seed {options.seed}, {file}: {found}", flush=True)
                if options.keep:
                    shutil.copytree(home / str(number), options.keep / f"{options.seed}-{number}")
            shutil.rmtree(home / str(number))
    for reader, counts in table.items():
        print(f"{reader:9}", *(f"{counts[word]:6} {word}" for word in (*GOOD, "findings")))
    findings = sum(counts["findings"] for counts in table.values())
    print(f"{len(numbers)} mutants of seed {options.seed}: {findings} findings")
    return findings


if __name__ == "__main__":
    sys.exit(min(main(), 1))
