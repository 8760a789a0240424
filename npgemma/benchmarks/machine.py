"""The machine that is measured on: its processor, libraries and load."""

import os
import pathlib
import platform
import sys

import numpy as np

from npgemma.fast import blas, threads


def machine(device="cpu"):
    """Return what runs here, and how busy it was before: a load of 1 keeps one core busy.

    ``kernel`` is the one that NumPy's matrix library uses, ``held_back_by`` what in the environment has chosen it;
    ``bfloat16_instructions`` are the processor's, which PyTorch uses and NumPy's library does not.
    """
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    versions |= {name: str(sys.modules[name].__version__) for name in ("torch", "transformers") if name in sys.modules}
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    found = processor() | {"threads": threads.count(), "load_before": load, "versions": versions}
    found |= {"kernel": blas.kernel(), "held_back_by": blas.held_back_by()}
    if device != "cpu":
        found["accelerator"] = sys.modules["torch"].cuda.get_device_name(device)
    return found


def processor(path="/proc/cpuinfo"):
    """Return the processor's name, and which of its instructions multiply bfloat16, as far as Linux tells."""
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except OSError:
        return {"processor": platform.machine(), "bfloat16_instructions": []}
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", told.get("Features", "")).split()
    known = [flag for flag in ("avx512_bf16", "amx_bf16", "bf16", "svebf16") if flag in flags]
    return {"processor": told.get("model name", platform.machine()), "bfloat16_instructions": known}
