"""Progress of long work, for a person at a terminal; the forward pass knows nothing of it."""

import dataclasses
import sys
import time


class Progress:
    """One line on stderr that is written over, from the second second on; silent if stderr is no terminal."""

    def __init__(self):
        self.start, self.shown = time.monotonic(), False
        self.active = sys.stderr.isatty()

    def report(self, what, done, total):
        """Say how much of ``what`` is done."""
        self.note(f"{what}: {100 * done // total} %")

    def note(self, what):
        """Say what is going on."""
        if self.active and time.monotonic() - self.start > 1:
            print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)
            self.shown = True

    def clear(self):
        """Take the line away, before anything else is printed."""
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self.shown = False

    def watch(self, params):
        """Return the same weights, whose layers are reported as the forward pass takes them up."""
        if not self.active:
            return params
        towers = {"vision": "looking at the picture", "text": "reading the prompt"}
        watched = {
            name: dataclasses.replace(
                getattr(params, name), blocks=_Watched(getattr(params, name).blocks, self.report, what)
            )
            for name, what in towers.items()
        }
        return dataclasses.replace(params, **watched)


class _Watched(tuple):
    """A tuple that reports how far a loop over it has come."""

    def __new__(cls, items, report, what):
        self = super().__new__(cls, items)
        self.report, self.what = report, what
        return self

    def __iter__(self):
        for i, item in enumerate(super().__iter__()):
            self.report(self.what, i, len(self))
            yield item
