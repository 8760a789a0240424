"""Record the named arrays of a forward pass, without a line of code in the forward pass itself."""

import contextlib
import fnmatch
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from npgemma.axes import suffix
from npgemma.fast.blocks import whole_arrays
from npgemma.machinery.backend import to_numpy

# What is followed: the functions of all files of these two rooms. A file says ``RECORDED = False`` if it is not part of
# the forward pass. Methods, generators and names with an underscore in front are passed over.
ROOMS = ("npgemma", "torch_ref")


@contextlib.contextmanager
def record(
    only: str = "*",
    sink: Callable[[str, np.ndarray], None] | None = None,
    watch: Callable[[str, Any, types.FrameType], None] | None = None,
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
        Called before that as ``watch(name, value, frame)``, with the backend's own array and the frame of the function
        that bound it.

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
        If a profiler is active: there can be only one.

    Notes
    -----
    A name that a loop binds again keeps its first value: the later ones are arguments and results of what the loop
    calls. Only the thread that records is seen. It copies: a prefill of the 3B model fills 2.3 GB, so use ``only`` or a
    ``sink`` there. In use, it makes layers take all tokens at once, so that arrays are whole: at 896 pixels one layer's
    scores are 1.1 GB. It costs nothing when not in use.

    Examples
    --------
    >>> import npgemma
    >>> model = npgemma.load()
    >>> with npgemma.record(only="*/attend.0/weight_BKGTS") as trace:
    ...     answer = model.generate(npgemma.example_image(), "caption en", max_new_tokens=1)
    >>> next(iter(trace))
    'encode_image.0/encode.0/block.0/self_attention.0/attend.0/weight_BKGTS'
    """
    if sys.getprofile() is not None:
        raise RuntimeError("record() needs the profiling hook, which another profiler or record() is using")
    trace, problems = {}, []
    keep = sink or trace.__setitem__

    def found(name, value, frame):
        if watch:
            watch(name, value, frame)
        if fnmatch.fnmatchcase(name, only):
            keep(name, to_numpy(value))

    sys.setprofile(_Recorder(found, problems))
    try:
        with whole_arrays():
            yield trace
    finally:
        sys.setprofile(None)
    if problems:
        raise ValueError("; ".join(problems[:5]))


def recording() -> bool:
    """Say whether `record` is recording in this thread."""
    return isinstance(sys.getprofile(), _Recorder)


class _Call:
    """An open call of a function of the forward pass."""

    def __init__(self, path, frame):
        self.path, self.frame = path, frame
        self.calls = {}  # how often it has called each function
        self.known, self.sizes = set(), {}  # names that were read already, and what their letters stand for


class _Recorder:
    """Follow calls and returns, and read what has been bound since: a name is bound before the next call begins."""

    def __init__(self, found, problems):
        self.found, self.problems = found, problems
        self.open = [_Call("", None)]

    def __call__(self, frame, event, argument):
        if event not in ("call", "return"):
            return
        caller = self.open[-1]
        if event == "call" and frame.f_back is caller.frame:
            self._read(caller)
        if not _is_forward(frame):
            return
        if event == "call":
            function = frame.f_code.co_name
            count = caller.calls[function] = caller.calls.get(function, -1) + 1
            self.open.append(_Call(f"{caller.path}{function}.{count}/", frame))
            self._read(self.open[-1])
        elif frame is caller.frame:
            self._read(self.open.pop())

    def _read(self, call):
        if call.frame is None:
            return
        for name, value in call.frame.f_locals.items():
            letters = suffix(name)
            if letters is None or name in call.known or not hasattr(value, "shape"):
                continue
            call.known.add(name)
            if _fits(letters, value.shape, call.sizes):
                self.found(call.path + name, value, call.frame)
            else:
                known = {letter: call.sizes[letter] for letter in letters if letter in call.sizes}
                self.problems.append(f"{call.path}{name} has shape {tuple(value.shape)}, but its letters say {known}")


def _is_forward(frame):
    room, _, module = frame.f_globals.get("__name__", "").partition(".")
    code = frame.f_code
    return (
        room in ROOMS
        and module.isidentifier()
        and frame.f_globals.get("RECORDED", True)
        and not code.co_name.startswith(("_", "<"))
        and not code.co_flags & inspect.CO_GENERATOR
        and code.co_varnames[:1] != ("self",)
    )


def _fits(letters, shape, sizes):
    """Check a shape against the letters, and against sizes that other arrays of the function gave them."""
    return len(letters) == len(shape) and all(
        sizes.setdefault(letter, size) == size for letter, size in zip(letters, shape)
    )
