"""Record the named arrays of a forward pass, without a line of code in the forward pass itself."""

import contextlib
import fnmatch
import inspect
import sys
from collections.abc import Callable, Iterator

import numpy as np

from npgemma.axes import suffix
from npgemma.fast.blocks import whole_arrays

# What is followed: the functions of all files of these two rooms. A file says ``RECORDED = False`` if it is not part of
# the forward pass. Methods, generators and names with an underscore in front are passed over.
ROOMS = ("npgemma", "torch_ref")


@contextlib.contextmanager
def record(only: str = "*", sink: Callable[[str, np.ndarray], None] | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Record every named array of the forward passes that run inside a ``with`` block.

    As each function of the forward pass returns, its local variables whose names end in axis letters are read. The name
    of an array is the path of calls to it: ``prefill.0/run_blocks.0/block.3/grouped_query_attention.0/q_BTNH``; the
    number counts the calls of one function within its caller. Both backends give the same names.

    Parameters
    ----------
    only : str
        Keep names that match this shell pattern: ``"*/block.3/*"``.
    sink : callable, optional
        Called as ``sink(name, array)`` for each; by default arrays are kept in the dictionary.

    Yields
    ------
    dict of str to array
        Copies, as NumPy arrays (bfloat16 of the twin as float32), in the order in which functions return.

    Raises
    ------
    ValueError
        At the end, if a name's letters do not fit its array: another number of axes, or one letter with two sizes in
        one function.
    RuntimeError
        If a profiler is active: there can be only one.

    Notes
    -----
    Only named values are seen, at the value they have when the function returns; only in the thread that records. It
    copies: a prefill of the 3B model fills 2.3 GB, so use ``only`` or a ``sink`` there. In use, it makes layers take
    all tokens at once, so that arrays are whole: at 896 pixels one layer's scores are 1.1 GB. It costs nothing when not
    in use.

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
    recorder = _Recorder(only, sink or trace.__setitem__, problems)
    sys.setprofile(recorder)
    try:
        with whole_arrays():
            yield trace
    finally:
        sys.setprofile(None)
    if problems:
        raise ValueError("; ".join(problems[:5]))


class _Recorder:
    """Follow calls and returns; at each return read the named arrays."""

    def __init__(self, only, sink, problems):
        self.only, self.sink, self.problems = only, sink, problems
        self.scopes = [("", {})]  # for each open call: its path, and how often it has called each function

    def __call__(self, frame, event, argument):
        if event not in ("call", "return") or not _is_forward(frame):
            return
        if event == "call":
            path, calls = self.scopes[-1]
            function = frame.f_code.co_name
            count = calls[function] = calls.get(function, -1) + 1
            self.scopes.append((f"{path}{function}.{count}/", {}))
        elif len(self.scopes) > 1:
            self._read(self.scopes.pop()[0], frame)

    def _read(self, path, frame):
        sizes = {}
        for name, value in frame.f_locals.items():
            letters = suffix(name)
            if letters is None or not hasattr(value, "shape"):
                continue
            if not _fits(letters, value.shape, sizes):
                known = {letter: sizes[letter] for letter in letters if letter in sizes}
                self.problems.append(f"{path}{name} has shape {tuple(value.shape)}, but its letters say {known}")
            elif fnmatch.fnmatchcase(path + name, self.only):
                self.sink(path + name, to_numpy(value))


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


def to_numpy(x):
    """Return a copy as a NumPy array, whichever backend made it, without importing torch."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if "bfloat16" in str(x.dtype) else x).numpy()
    return np.array(x)
