"""Progress of long work, for a person at a terminal; the forward pass knows nothing of it."""

import contextlib
import sys
import time


class Progress:
    """A one-line progress display on stderr, shown after one second, and only on a terminal."""

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

    def end(self):
        """Take the line away and show no more."""
        self.clear()
        self.active = False

    @contextlib.contextmanager
    def layers(self, config):
        """Report each block that the forward pass enters inside a ``with`` block, until `end` is called.

        Python's profiling hook sees the calls, so nothing about it stands in the forward pass. Another profiler is
        left alone: then no blocks are reported.

        Parameters
        ----------
        config : npgemma.config.Config
        """
        towers = {
            "siglip": ("encoding the image", config.vision.layers),
            "gemma": ("reading the prompt", config.text.layers),
            "gemma2": ("reading the prompt", config.text.layers),
        }
        entered = dict.fromkeys(towers, 0)

        def watch(frame, event, argument):
            """Count calls of the towers' blocks."""
            tower = frame.f_globals.get("__name__", "").rpartition(".")[2]
            if event != "call" or frame.f_code.co_name != "block" or tower not in towers:
                return
            if not self.active:
                sys.setprofile(None)
                return
            what, layers = towers[tower]
            self.report(what, entered[tower], layers)
            entered[tower] += 1

        watching = self.active and sys.getprofile() is None
        if watching:
            sys.setprofile(watch)
        try:
            yield
        finally:
            if watching:
                sys.setprofile(None)
