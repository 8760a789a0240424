"""What do readers say of damaged files? ``python reports/mutants.py [--count N] [--seed S] [--jobs J] [--only I]``.

Damages one of many small valid files at random, and reads it as its command does; mutant I of seed S is always the same.
A finding is what is neither read nor refused by an `InputError` of one sentence that names the file: another exception,
a warning, a library's text on the terminal, more than ten seconds, a process that ends. Each process has 3 GB.
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
import sys
import tempfile
import traceback
import warnings

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]

import samples  # noqa: E402
from damage import damaged  # noqa: E402

from npgemma.errors import InputError  # noqa: E402
from npgemma.files.foreign import HIDDEN  # noqa: E402

SECONDS, BYTES, LETTERS = 10, 3 * 10**9, 2000


def drawn(seed, number, home):
    """Return a mutant's reader, the valid file that is damaged for it, and the damaged content."""
    draw = random.Random(f"{seed}/{number}")
    reader = draw.choice(list(samples.READERS))
    files = sorted(file for file in (home / reader).rglob("*") if file.is_file() and samples.SOUND not in file.parts)
    file = draw.choice(files)
    others = [other for other in files if other.suffix == file.suffix or draw.random() < 0.1]
    return reader, file, damaged(draw, file.name, file.read_bytes(), draw.choice(others).read_bytes())


def outcome(seed, number, home):
    """Make a mutant, in a folder of its number, and read it; return ``read``, ``refused``, or what is found."""
    reader, valid, content = drawn(seed, number, home)
    folder = shutil.copytree(home / reader, home / str(number), copy_function=os.link)
    file = folder / valid.relative_to(home / reader)
    file.unlink()
    file.write_bytes(content)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            samples.READERS[reader](folder, file)
    except InputError as problem:
        text = str(problem)
        faults = {
            "control characters": HIDDEN.search(text),
            f"{len(text)} letters": len(text) > LETTERS,
            "no name of the file": file.name not in text and str(folder) not in text,
        }
        fault = next((fault for fault, found in faults.items() if found), None)
        return f"a message with {fault} {_place(problem)}: {text[:300]!r}" if fault else "refused"
    except Exception as problem:
        return f"{type(problem).__name__} {_place(problem)}: {str(problem)[:300]!r}"
    return f"a warning at {warned[0].filename}:{warned[0].lineno}: {warned[0].message}" if warned else "read"


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
    for number in numbers:
        # Ends the process, even inside a library that does not return, and writes where it was.
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=log)
        found = outcome(seed, number, home)
        faulthandler.cancel_dump_traceback_later()
        if found in ("read", "refused"):
            shutil.rmtree(home / str(number))
            if os.fstat(2).st_size:
                found = f"printed: {pathlib.Path(log.name).read_text(errors='replace')[:300]!r}"
        results.send((number, found))
        log.truncate(0)


def outcomes(numbers, seed, home, jobs):
    """Yield the number and the outcome of each mutant, from processes that are replaced where they end."""
    fork, workers = multiprocessing.get_context("fork"), {}

    def start(left, log):
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=_work, args=(list(left), seed, home, sender, log))
        process.start()
        sender.close()
        workers[receiver] = process, left, log

    for job in range(jobs):
        start(collections.deque(numbers[job::jobs]), open(home / f"log-{job}", "a+"))
    while workers:
        for receiver in multiprocessing.connection.wait(list(workers)):
            process, left, log = workers[receiver]
            try:
                yield receiver.recv()
                left.popleft()
            except EOFError:
                process.join()
                del workers[receiver]
                if left:
                    said = pathlib.Path(log.name).read_text(errors="replace")
                    yield left.popleft(), f"the process ended with {process.exitcode}: {said[:2000]}"
                    log.truncate(0)
                    start(left, log)
                else:
                    log.close()


def main(arguments=None):
    """Print each finding, and how many mutants of each kind were read and refused; return the number of findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=29, metavar="S")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="J")
    parser.add_argument("--only", type=int, metavar="I")
    parser.add_argument("--keep", metavar="DIR")
    options = parser.parse_args(arguments)
    numbers = range(options.count) if options.only is None else [options.only]
    table = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        samples.make(home)
        for number, found in outcomes(numbers, options.seed, home, min(options.jobs, len(numbers))):
            reader, file, _ = drawn(options.seed, number, home)
            finding = found not in ("read", "refused")
            table[reader]["findings" if finding else found] += 1
            if finding or options.only is not None:
                print(f"mutant {number} of seed {options.seed}, {file.relative_to(home)}: {found}", flush=True)
            if (home / str(number)).exists():
                if options.keep:
                    shutil.copytree(home / str(number), pathlib.Path(options.keep, f"{options.seed}-{number}"))
                shutil.rmtree(home / str(number))
    for reader in samples.READERS:
        print(f"{reader:9}", *(f"{table[reader][word]:6} {word}" for word in ("read", "refused", "findings")))
    return sum(counts["findings"] for counts in table.values())


if __name__ == "__main__":
    sys.exit(min(main(), 1))
