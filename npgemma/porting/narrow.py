"""The reference as a right program of a narrow dtype runs it, every named array rounded; which dtype numbers have."""

from collections.abc import Callable, Iterable

import numpy as np

from npgemma.porting.difference import same
from npgemma.porting.mistakes.injection import rounded_to_bfloat16
from npgemma.probe.replay import replaying

NARROW = ("bfloat16", "float16")
# Rounding is the same in every run, but right programs order their sums otherwise, and so round otherwise. A run that
# rounds ``x * grid`` stands for another such program: its numbers are as near to one another, and lie elsewhere.
GRIDS = (1.0, 1.26, 1.59)


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """Round to a dtype of `NARROW`, and keep the dtype of ``x``; what would be infinite there stays.

    Examples
    --------
    >>> import numpy as np
    >>> rounded(np.array([1.001, np.inf, 1e6]), "float16")
    array([1.00097656e+00,            inf, 1.00000000e+06])
    """
    with np.errstate(over="ignore"):
        near = rounded_to_bfloat16(x) if dtype == "bfloat16" else x.astype(np.float16).astype(x.dtype)
    return np.where(np.isfinite(near), near, x)


def dtype_of(arrays: Iterable[np.ndarray]) -> str:
    """Return the dtype of `NARROW` that holds all floating-point numbers of some arrays exactly, whatever they are
    stored in; ``float32`` if neither does.

    Examples
    --------
    >>> import numpy as np
    >>> dtype_of([np.array([1.5, -0.375])]), dtype_of([np.float32([1.001])])
    ('bfloat16', 'float32')
    """
    numbers = [array for array in arrays if array.dtype.kind == "f" and array.size]
    fitting = (dtype for dtype in NARROW if all(same(rounded(each, dtype), each) for each in numbers))
    return next(fitting, "float32") if numbers else "float32"


def runs(run: Callable[[], np.ndarray], dtype: str) -> list[np.ndarray]:
    """Return what ``run`` returns if all arrays of the NumPy reference that have a name are rounded to a dtype of
    `NARROW`, once for each of `GRIDS`. Angles stay: right programs calculate them in float32.
    """

    def on(grid):
        def choose(name, computed, inside):
            if computed.dtype.kind != "f" or "angle" in name.rpartition("/")[2]:
                return computed
            return rounded(computed * grid, dtype) / grid

        with replaying(choose):
            return run()

    return [on(grid) for grid in GRIDS]
