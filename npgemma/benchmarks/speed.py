"""How fast a model runs, beside how fast this machine could: every stage against the limit that holds for it.

Two limits are measured in the same run: how fast large arrays come out of memory, and how fast large matrices are
multiplied. Reading an image and a prompt is arithmetic; a further token is reading: every weight once.
"""

import math

import numpy as np

from npgemma.benchmarks.machine import machine
from npgemma.benchmarks.stages import PROMPT_TOKENS, Stages, time_stages, timed
from npgemma.fast.dtypes import DTYPES
from npgemma.params import leaves


def measure(model, batches=(1,), tokens=8, repeats=3, longest=math.inf, progress=lambda what: None):
    """Time a model's stages, and measure this machine's limits.

    Every stage of `npgemma.benchmarks.stages.time_stages` (whose arguments these are) also gets its ``limit`` in
    seconds at the measured rates, and the ``percent`` of it that is reached. ``peak_bytes`` of memory are from before
    the limits were measured.
    """
    backend, here = model.backend, machine(model.backend.device)
    with backend.session():
        stages = time_stages(Stages(model, tokens + 1), batches, tokens, repeats, longest, progress)
        peak_bytes = backend.peak_bytes()
        progress("what this machine can do")
        rates = limits(backend)
    for stage, limit in _least(work(model.config), rates, backend.dtype, batches).items():
        stages[stage] |= {"limit": limit, "percent": 100 * limit / stages[stage]["seconds"]}
    parameters = sum(int(np.prod(x.shape)) for _, _, x in leaves(model.params))
    return {
        "machine": here,
        "model": {"dtype": backend.dtype, "parameters": parameters},
        "limits": rates,
        "load_seconds": model.load_seconds,
        "stages": stages,
        "peak_bytes": peak_bytes,
    }


def _least(operations, rates, dtype, batches):
    """Return the least seconds that each stage takes at the measured rates."""
    rate = rates["operations_per_second"]
    reading = operations["step_weights"] * DTYPES[dtype].bytes / rates["bytes_per_second"]
    steps = {f"token, batch {batch}": max(reading, batch * operations["step"] / rate) for batch in batches}
    return {"vision tower": operations["vision"] / rate, "prefill": operations["prefill"] / rate} | steps


def limits(backend, repeats=8):
    """Return how fast this machine reads memory and multiplies matrices, with the backend's own kind of numbers.

    The best of the repeats counts: a limit is what is possible. Operations are multiplications and additions.
    """
    # 256 MB in float32, far more than any cache; a product of a matrix and a vector reads the matrix once.
    large, vector = (backend.to_activation(np.ones(shape, dtype=np.float32)) for shape in ((8192, 8192), 8192))
    rows = backend.to_activation(np.ones((2048, 2048), dtype=np.float32))
    reading, _ = timed(lambda: large @ vector, backend.clock, repeats)
    multiplying, _ = timed(lambda: rows @ large[:2048], backend.clock, repeats)
    return {
        "bytes_per_second": large.itemsize * 8192 * 8192 / min(reading)[0],
        "operations_per_second": 2 * 2048 * 2048 * 8192 / min(multiplying)[0],
    }


def work(config) -> dict[str, int]:
    """Return the operations (multiplications and additions) that a run does at least, and the weights that a step
    reads.

    Those of ``step`` are for one row.
    """
    vision, text, T = config.vision, config.text, config.image_tokens
    S = T + PROMPT_TOKENS
    block = 4 * vision.width**2 + 2 * vision.width * vision.mlp_width
    mixing = 2 * T * vision.width
    patches = 3 * vision.patch_size**2 * vision.width
    heads = 2 * (text.query_heads + text.key_value_heads) * text.head_width
    weights = text.layers * text.width * (heads + 3 * text.mlp_width)
    head = text.vocabulary * text.width
    attention = text.layers * 2 * S * text.query_heads * text.head_width
    return {
        "vision": 2 * T * (vision.layers * (block + mixing) + patches),
        "prefill": 2 * S * (weights + attention) + 2 * head,
        "step": 2 * (weights + head + attention),
        "step_weights": weights + head,
    }
