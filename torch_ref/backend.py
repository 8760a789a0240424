"""The torch backend: the twin's functions, PyTorch's arrays, and what CUDA needs around them."""

import contextlib
import functools
import time
import warnings

import numpy as np
import torch

from npgemma.errors import InputError
from npgemma.fast.bfloat16 import BFloat16Weight
from npgemma.fast.dtypes import DTYPES
from npgemma.machinery.backend import Backend, check_dtype, looked_up, peak_bytes
from npgemma.params import map_leaves
from torch_ref import cache, generate, paligemma
from torch_ref import static as static_shapes


def torch_backend(dtype="float32", device="cpu", static=False):
    """Return the torch backend.

    Parameters
    ----------
    dtype : str
        ``float32``, ``float64`` or ``bfloat16``: of weights and activations.
    device : str
        ``cpu`` or ``cuda``.
    static : bool
        Decode with ``static.py``: on CUDA the step is compiled, which takes a minute once, and captured.

    Returns
    -------
    Backend

    Raises
    ------
    InputError
        If torch has no such dtype or device here.
    """
    check_device(device)
    check_dtype(dtype)
    if not DTYPES[dtype].torch:
        raise InputError(f"{dtype} weights are an option of the NumPy backend: use it, or dtype bfloat16")

    def to_array(x):
        """Hand an array to torch; a tensor keeps what it was made from."""
        # A copy, since torch warns of arrays that cannot be written to.
        return (x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x))).to(device)

    step, make_cache = looked_up(paligemma, "step")["step"], cache.KVCache
    if static:
        step, make_cache = static_shapes.step, static_shapes.KVCache
    return Backend(
        name="torch",
        dtype=dtype,
        device=device,
        to_array=to_array,
        to_activation=lambda x: to_array(x).to(getattr(torch, dtype)),
        all_finite=lambda x: bool(torch.isfinite(x.detach()).all()),
        clock=functools.partial(_clock, device),
        peak_bytes=peak_bytes if device == "cpu" else torch.cuda.max_memory_allocated,
        session=functools.partial(session, device),
        **looked_up(paligemma, "encode_image", "encode_images", "logits", "prefill"),
        step=step,
        make_cache=make_cache,
        generate=functools.partial(generate.generate, make_cache=make_cache, step=step),
        greedy=generate.greedy,
        sample=generate.sample,
    )


def to_torch(params, dtype="float32", device="cpu"):
    """Return a tree of NumPy weights as torch's; on the CPU they share the memory.

    Parameters
    ----------
    params : Params
        Of arrays and `npgemma.fast.bfloat16.BFloat16Weight`.
    dtype : str
    device : str

    Returns
    -------
    Params
    """

    def convert(weight):
        """Return one array as torch's."""
        is_narrow = isinstance(weight, BFloat16Weight)
        with warnings.catch_warnings():
            # A mapped file cannot be written to, and torch warns that it will not check; nothing here writes.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            x = torch.from_numpy(weight.bits.view(np.int16) if is_narrow else np.asarray(weight))
        x = x.view(torch.bfloat16) if is_narrow else x
        return x.to(device=device, dtype=getattr(torch, dtype))

    return map_leaves(convert, params)


def check_device(device):
    """Refuse a device that is not there."""
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InputError(f"torch finds no CUDA device (torch {torch.__version__}): use --device cpu")
    elif device not in ("cpu", "meta"):
        raise InputError(f"device should be cpu or cuda, found '{device}'")


@contextlib.contextmanager
def session(device, gradients=False):
    """Set torch up for one piece of work, and restore it afterwards.

    Parameters
    ----------
    device : str
    gradients : bool
        Whether what is calculated can be differentiated. Otherwise torch keeps nothing for it.
    """
    with memory_errors(), exact_float32(device), torch.inference_mode(not gradients):
        yield


@contextlib.contextmanager
def memory_errors():
    """Turn torch's errors for too little memory into Python's own."""
    try:
        yield
    except torch.OutOfMemoryError as problem:
        raise MemoryError(str(problem)) from None
    except RuntimeError as problem:
        # On the CPU torch has no error of its own for it.
        if "allocate memory" not in str(problem):
            raise
        raise MemoryError(str(problem)) from None


@contextlib.contextmanager
def exact_float32(device="cuda"):
    """Switch off TF32, in which CUDA would multiply float32 numbers with 10 bits of mantissa."""
    if device == "cpu":
        yield
        return
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, allowed in zip(switches, before):
            switch.allow_tf32 = allowed


def _clock(device):
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()
