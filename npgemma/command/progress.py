"""Progress of long work, for a person at a terminal; the forward pass knows nothing of it."""

import contextlib
import pathlib
import sys
import time

from npgemma.command.streams import unescaped
from npgemma.files.foreign import shown
from npgemma.probe.calls import Probe
from npgemma.probe.following import probing


class Progress:
    """A one-line progress display on stderr, shown after one second, and only on a terminal."""

    def __init__(self):
        self.start, self.shown = time.monotonic(), False
        self.active = self.terminal = sys.stderr.isatty()
        self.counted, self.first = (
            "",
            None,
        )  # how many answers are done; when the first were, and how many

    def report(self, what, done, total):
        """Say how much of ``what`` is done."""
        self.note(f"{what}: {100 * done // total} %")

    def note(self, what):
        """Say what is going on."""
        if self.active and time.monotonic() - self.start > 1:
            print(f"\r\033[K{self.counted}{shown(what, 100)}", end="", file=unescaped(sys.stderr), flush=True)
            self.shown = True

    def count(self, done, total):
        """Say how many of several answers are done and how long the others will take, before all that is reported."""
        if not self.terminal or total == 1 or done == total:
            return
        self.active, now = True, time.monotonic()
        began, before = self.first = self.first or (now, done)
        self.counted = f"{done} of {total}"
        if done > before:
            self.counted += f", {(now - began) / (done - before) * (total - done):.0f} s left"
        self.note("")
        self.counted += ": "

    def clear(self):
        """Take the line away, before anything else is printed."""
        if self.shown:
            print("\r\033[K", end="", file=unescaped(sys.stderr), flush=True)
        self.shown = False

    def end(self):
        """Take the line away and show no more."""
        self.clear()
        self.active = False

    def layers(self, config):
        """Report each block that the forward pass enters inside a ``with`` block, until `end` is called."""
        return probing(_Blocks(self, config)) if self.active else contextlib.nullcontext()


class _Blocks(Probe):
    """Counts the blocks of both towers."""

    def __init__(self, progress, config):
        self.progress = progress
        decoder = ["reading the prompt", config.text.layers, 0]
        self.towers = {"siglip": ["encoding the image", config.vision.layers, 0], "gemma": decoder, "gemma2": decoder}

    def on_call(self, path, source):
        """Count a call of a block."""
        if self.progress.active and source.name == "block":
            tower = self.towers[pathlib.PurePath(source.file).stem]
            # Those of the steps after the prompt are not counted.
            if tower[2] < tower[1]:
                self.progress.report(tower[0], tower[2], tower[1])
            tower[2] += 1
