"""Interrupts while a program of ours starts: NumPy's import would print a traceback, so they end it at once.

`npgemma/__init__.py` imports this first. A process that only imports npgemma is left alone.
"""

import _signal as signal  # type: ignore[import-not-found]  # without the enumerations of signal, which take 3 ms
import os
import sys

# While `npgemma.command.guarded` is "working", it ends an interrupt as quietly; then there is nothing left to be ended.
stage = "starting"


def _interrupted(*_: object) -> None:
    if stage == "starting":
        os._exit(130)
    if stage == "working":
        raise KeyboardInterrupt


def _is_our_program() -> bool:
    """Say whether this process is ``-m`` with a module of ours, the console script, or cli.py."""
    words, main = getattr(sys, "argv", None) or [""], getattr(sys.modules.get("__main__"), "__file__", None) or ""
    if words[0] == "-m":  # until Python has found the module
        return sys.orig_argv[-len(words)].removeprefix("-m") in ("npgemma", "conversion")
    cli = os.path.normpath(f"{__file__}/../../../cli.py")
    return os.path.basename(main) == "npgemma" or os.path.normpath(main) == cli


if _is_our_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupted)
