"""Record the named arrays of a forward pass, without a line of code in the forward pass itself."""

import contextlib
import fnmatch
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from npgemma.axes import suffix
from npgemma.machinery.backend import to_numpy
from npgemma.probe.calls import Probe, Statement
from npgemma.probe.following import probing


@contextlib.contextmanager
def record(
    only: str = "*",
    sink: Callable[[str, np.ndarray], None] | None = None,
    watch: Callable[[str, Any, Statement], None] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Record every named array of the forward passes that run inside a ``with`` block, in the order of the data flow.

    Followed are the local variables whose names end in axis letters: an argument as its function is called, any other
    as soon as it is bound. The name of an array is the path of calls to it:
    ``prefill.0/run_blocks.0/block.3/grouped_query_attention.0/q_BTNH``; the number counts the calls of one function
    within its caller. Both backends give the same names in the same order.

    Parameters
    ----------
    only : str
        Keep names that match this shell pattern: ``"*/block.3/*"``.
    sink : callable, optional
        Called as ``sink(name, array)`` for each; by default arrays are kept in the dictionary.
    watch : callable, optional
        Called before that as ``watch(name, value, statement)``, with the backend's own array and the
        `npgemma.probe.Statement` that bound it.

    Yields
    ------
    dict of str to array
        Copies, as NumPy arrays (bfloat16 of the twin as float32). Every array stands after those it was made from.

    Raises
    ------
    ValueError
        At the end, if a name's letters do not fit its array: another number of axes, or one letter with two sizes in
        one function.
    RuntimeError
        If the source files of the forward pass are not at hand.

    Notes
    -----
    A name that a loop binds again keeps its first value: the later ones are arguments and results of what the loop
    calls. Only the thread that records is seen; recordings may be nested. A call through its module is recorded,
    ``siglip.encode(...)``; that of a function which was imported by its name before, ``encode(...)``, may be missed.
    Recording copies: a prefill of the 3B model fills 2.3 GB, so use ``only`` or a ``sink`` there. While it is in use,
    layers take all tokens at once, so that arrays are whole: at 896 pixels one layer's scores are 1.1 GB. It costs
    nothing when not in use.

    Examples
    --------
    >>> import npgemma
    >>> model = npgemma.load()
    >>> with npgemma.record(only="*/attend.0/weight_BKGTS") as trace:
    ...     answer = model.generate(npgemma.example_image(), "caption en", max_new_tokens=1)
    >>> next(iter(trace))
    'encode_image.0/encode.0/block.0/self_attention.0/attend.0/weight_BKGTS'
    """
    trace: dict[str, np.ndarray] = {}
    problems: list[str] = []
    recorder = _Recorder(only, sink or trace.__setitem__, watch, problems)
    with probing(recorder):
        yield trace
    if problems:
        raise ValueError("; ".join(problems[:5]))


class _Recorder(Probe):
    """Hands out copies of the arrays whose names match, and notes names that do not fit their arrays."""

    def __init__(self, only, keep, watch, problems):
        self.only, self.keep, self.watch, self.problems = only, keep, watch, problems
        self.sizes = {}  # by call: what its letters stand for

    def on_bind(self, name, value, statement):
        """Keep an array."""
        path, _, variable = name.rpartition("/")
        letters, sizes = suffix(variable), self.sizes.setdefault(path, {})
        if not _fits(letters, value.shape, sizes):
            known = {letter: sizes[letter] for letter in letters if letter in sizes}
            self.problems.append(f"{name} has shape {tuple(value.shape)}, but its letters say {known}")
            return value
        if self.watch:
            self.watch(name, value, statement)
        if fnmatch.fnmatchcase(name, self.only):
            self.keep(name, to_numpy(value))
        return value


def _fits(letters, shape, sizes):
    """Check a shape against the letters, and against sizes that other arrays of the call gave them."""
    return len(letters) == len(shape) and all(
        sizes.setdefault(letter, size) == size for letter, size in zip(letters, shape)
    )
