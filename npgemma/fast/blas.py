"""NumPy's matrix library, if it is the usual OpenBLAS: how many threads it uses, and which kernel."""

import contextlib
import ctypes
import functools
import os
import pathlib

import numpy as np

# A program sets these for compatibility; OpenBLAS then uses kernels or tiles of another processor than this one.
HOLDING_BACK = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


@contextlib.contextmanager
def on_one_thread():
    """Keep OpenBLAS from using threads of its own beside ours.

    Its threads wait for more work in a loop, for milliseconds, and keep a core from ours: single products of a token
    became twice as slow when attention, between them, had used its threads.
    """
    get, set_ = _function("get_num_threads"), _function("set_num_threads")
    before = get() if get else 1
    if before == 1:
        yield
        return
    set_(1)
    try:
        yield
    finally:
        set_(before)


def kernel():
    """Return the name of the processor whose kernels OpenBLAS has chosen; None for another library.

    ``"SkylakeX"`` is AVX-512; ``"Haswell"`` and ``"Zen"`` are AVX2, half as fast where there is AVX-512.
    """
    get = _function("get_corename", ctypes.c_char_p)
    return get().decode() if get else None


def held_back_by():
    """Return the environment variables that keep OpenBLAS from choosing its kernels and tiles by itself."""
    return {name: os.environ[name] for name in HOLDING_BACK if os.environ.get(name)}


@functools.cache
def _function(name, returns=ctypes.c_int):
    """Return one of OpenBLAS's functions, or None for another library."""
    package = pathlib.Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            library = ctypes.CDLL(str(path))
            for suffix in ("64_", ""):
                function = getattr(library, f"scipy_openblas_{name}{suffix}", None)
                if function:
                    function.restype = returns
                    return function
    return None
