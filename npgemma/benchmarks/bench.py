"""How fast a model runs, beside how fast this machine could: every stage against the limit that holds for it.

Two limits are measured first, in the same run: how fast large arrays come out of memory, and how fast large matrices
are multiplied. Reading an image and a prompt is arithmetic; a further token is reading: every weight once.
"""

import os
import pathlib
import platform
import statistics
import sys

import numpy as np

from npgemma.fast import blas, threads
from npgemma.fast.dtypes import DTYPES
from npgemma.params import leaves

PROMPT_TOKENS = 6


def measure(model, batches=(1,), tokens=8, repeats=3, progress=lambda what: None):
    """Time a model's stages.

    Parameters
    ----------
    model : npgemma.Model
    batches : sequence of int
        So many prompts are decoded at once, in turn.
    tokens : int
        Steps that are timed in each.
    repeats : int
        How often image and prompt are read, after a first time that is not counted.
    progress : callable, optional
        Called with what is measured next.

    Returns
    -------
    dict
        ``machine``, ``model``, ``limits`` and ``stages``: each with median ``seconds``, their ``spread`` (highest less
        lowest, over the median), the ``limit`` in seconds at the measured rates, and the ``percent`` of it that is
        reached; of steps also ``tokens_per_second``, and ``choosing_seconds`` of a greedy choice. And ``peak_bytes``,
        of memory.
    """
    backend = model.backend
    about = {"machine": machine(backend.device)}
    progress("what this machine can do")
    with backend.session():
        rates = limits(model)
        stages = _stages(model, rates, batches, tokens, repeats, progress)
    parameters = sum(int(np.prod(x.shape)) for _, _, x in leaves(model.params))
    about["model"] = {"dtype": backend.dtype, "parameters": parameters}
    about |= {"limits": rates, "load_seconds": model.load_seconds, "stages": stages, "peak_bytes": backend.peak_bytes()}
    return about


def _stages(model, rates, batches, tokens, repeats, progress):
    """Time every stage of a model."""
    backend, params, config, randomness = model.backend, model.params, model.config, np.random.default_rng(0)
    size, S = config.vision.image_size, config.image_tokens + PROMPT_TOKENS
    pixels_BYXC = backend.to_activation(randomness.uniform(-1, 1, (1, size, size, 3)))
    ids_BT = backend.to_array(randomness.integers(4, _highest(config), (1, PROMPT_TOKENS)))
    valid_BT = backend.to_array(np.ones((1, PROMPT_TOKENS), dtype=bool))

    def prefill():
        """Read image and prompt of one row; return the cache they fill."""
        cache = backend.make_cache(config.text, 1, S + tokens + 1, image_BPD)
        backend.prefill(image_BPD, ids_BT, valid_BT, params, config, cache)
        return cache

    operations = work(config)
    progress("the vision tower")
    vision, image_BPD = _timed(backend, lambda: backend.encode_image(pixels_BYXC, params, config), repeats)
    progress("image and prompt")
    first, read = _timed(backend, prefill, repeats)
    stages = {
        "vision tower": _against(vision, operations["vision"] / rates["operations_per_second"]),
        "prefill": _against(first, operations["prefill"] / rates["operations_per_second"]),
    }
    for batch in batches:
        progress(f"tokens of {batch} prompts")
        # All rows go on from the same image and prompt: what they read takes as long as if they differed.
        cache = backend.make_cache(config.text, batch, S + tokens + 1, image_BPD)
        cache.k_LBSKH[:], cache.v_LBSKH[:], cache.length = read.k_LBSKH, read.v_LBSKH, S
        seconds, choosing = _steps(model, cache, batch, tokens, randomness)
        reading = operations["step_weights"] * DTYPES[backend.dtype].bytes / rates["bytes_per_second"]
        multiplying = batch * operations["step"] / rates["operations_per_second"]
        found = _against(seconds, max(reading, multiplying))
        rate = {"tokens_per_second": batch / found["seconds"], "choosing_seconds": statistics.median(choosing)}
        stages[f"token, batch {batch}"] = found | rate
    return stages


def _steps(model, cache, batch, tokens, randomness):
    """Time steps of an answer, and greedy choices after them; the first of each is not counted."""
    backend, config, seconds, choosing = model.backend, model.config, [], []
    for step in range(tokens + 1):
        ids_BT = backend.to_array(randomness.integers(4, _highest(config), (batch, 1)))
        valid_BS = backend.to_array(np.ones((batch, cache.length + 1), dtype=bool))
        start = backend.clock()
        logit_BV = backend.step(ids_BT, valid_BS, model.params, config, cache)
        stepped = backend.clock()
        # As `npgemma.machinery.model.Model.chooser` does for each token.
        backend.all_finite(logit_BV)
        backend.greedy(logit_BV).tolist()
        if step > 0:
            seconds.append(stepped - start)
            choosing.append(backend.clock() - stepped)
    return seconds, choosing


def _highest(config):
    """Return an id above all that are asked for: no image token, and within the table."""
    return min(config.text.vocabulary, config.image_token)


def machine(device="cpu"):
    """Return what runs here, and how busy it was before: a load of 1 keeps one core busy.

    ``kernel`` is the one that NumPy's matrix library uses, ``held_back_by`` what in the environment has chosen it;
    ``bfloat16_instructions`` are the processor's, which PyTorch uses and NumPy's library does not.
    """
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    if "torch" in sys.modules:
        versions["torch"] = str(sys.modules["torch"].__version__)
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


def limits(model, repeats=8):
    """Return how fast this machine reads memory and multiplies matrices, with the model's own kind of numbers.

    Parameters
    ----------
    model : npgemma.Model
    repeats : int
        The best counts: a limit is what is possible.

    Returns
    -------
    dict
        ``bytes_per_second``, ``operations_per_second`` (multiplications and additions).
    """
    backend = model.backend
    # 256 MB in float32, far more than any cache; a product of a matrix and a vector reads the matrix once.
    large, vector = (backend.to_activation(np.ones(shape, dtype=np.float32)) for shape in ((8192, 8192), 8192))
    bytes_read = large.itemsize * 8192 * 8192
    reading = min(_seconds(backend, lambda: large @ vector, repeats))
    rows = backend.to_activation(np.ones((2048, 2048), dtype=np.float32))
    multiplying = min(_seconds(backend, lambda: rows @ large[:2048], repeats))
    return {"bytes_per_second": bytes_read / reading, "operations_per_second": 2 * 2048 * 2048 * 8192 / multiplying}


def work(config):
    """Return what a run must do at least.

    Parameters
    ----------
    config : Config

    Returns
    -------
    dict of str to int
        Operations (multiplications and additions) of ``vision``, ``prefill`` and one row's ``step``; ``step_weights``,
        how many weights a step reads.
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


def _timed(backend, function, repeats):
    """Return how long a function took each time after the first, and what it returned."""
    found = function()
    return _seconds(backend, function, repeats), found


def _seconds(backend, function, repeats):
    seconds = []
    for _ in range(repeats):
        start = backend.clock()
        function()
        seconds.append(backend.clock() - start)
    return seconds


def _against(seconds, limit):
    """Compare measured times with the least that is possible."""
    median = statistics.median(seconds)
    spread = (max(seconds) - min(seconds)) / median
    return {"seconds": median, "spread": spread, "limit": limit, "percent": 100 * limit / median}
