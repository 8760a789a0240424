"""A backend: the functions of one package, the reference's or the twin's, and its kind of arrays.

*Next:* ``machinery/model.py``.
"""

import contextlib
import functools
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from npgemma import cache, generate, paligemma
from npgemma.errors import InputError
from npgemma.fast.dtypes import DTYPES


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The functions that `npgemma.machinery.model.Model` calls; `torch_ref.backend` makes those of the twin."""

    name: str
    # Of the weights; a key of `npgemma.fast.dtypes.DTYPES`.
    dtype: str
    device: str = "cpu"

    # From a NumPy array, or an array of the backend's own kind, to the backend's array on its device.
    to_array: Callable[..., Any]
    # The same for pixels, in the dtype that the backend calculates in.
    to_activation: Callable[..., Any]
    # Whether all numbers of an array are finite.
    all_finite: Callable[..., Any]
    # The time in seconds, once all work that was begun has ended.
    clock: Callable[..., Any]
    # The most memory that was held, in bytes; None where the system does not say.
    peak_bytes: Callable[..., Any]
    # A context in which the functions below are called; with ``gradients=True`` they can be differentiated.
    session: Callable[..., AbstractContextManager[None]] = lambda gradients=False: contextlib.nullcontext()

    # Of ``paligemma.py``, ``cache.py`` and ``generate.py``.
    encode_image: Callable[..., Any]
    encode_images: Callable[..., Any]
    logits: Callable[..., Any]
    prefill: Callable[..., Any]
    step: Callable[..., Any]
    make_cache: Callable[..., Any]
    generate: Callable[..., Any]
    greedy: Callable[..., Any]
    sample: Callable[..., Any]


def numpy_backend(dtype: str = "float32", device: str = "cpu", static: bool = False) -> Backend:
    """Return the NumPy backend, with the torch backend's options; InputError if NumPy cannot do what they ask for."""
    check_dtype(dtype)
    if device != "cpu":
        raise InputError(f"NumPy runs on the CPU, not on '{device}': use the torch backend with device cuda")
    if static:
        raise InputError("static shapes are an option of the torch backend: use the torch backend")
    step = looked_up(paligemma, "step")
    return Backend(
        name="numpy",
        dtype=dtype,
        to_array=np.asarray,
        to_activation=functools.partial(np.asarray, dtype=DTYPES[dtype].activations),
        all_finite=lambda x: bool(np.isfinite(x).all()),
        clock=time.perf_counter,
        peak_bytes=peak_bytes,
        **looked_up(paligemma, "encode_image", "encode_images", "logits", "prefill"),
        **step,
        make_cache=cache.KVCache,
        generate=functools.partial(generate.generate, make_cache=cache.KVCache, step=step["step"]),
        greedy=generate.greedy,
        sample=generate.sample,
    )


def looked_up(module: ModuleType, *names: str) -> dict[str, Any]:
    """Return functions that call what stands under a name in a module then: a probe exchanges it there."""

    def late(name: str) -> Callable[..., Any]:
        return lambda *arguments, **named: getattr(module, name)(*arguments, **named)

    return {name: late(name) for name in names}


def check_dtype(dtype: str) -> None:
    """Refuse a dtype that no backend has."""
    if dtype not in tuple(DTYPES):
        raise InputError(f"dtype should be {', '.join(DTYPES)}, found {dtype!r}")


def peak_bytes() -> int | None:
    """Return the most memory that this process has held, or None where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    # Linux counts in kilobytes, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def to_numpy(x: Any) -> np.ndarray:
    """Return a copy as a NumPy array, whichever backend made it, without importing torch."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if "bfloat16" in str(x.dtype) else x).numpy()
    return np.array(x)
