"""How fast a model runs, beside how fast this machine could: every stage against the limit that holds for it.

Two limits are measured first, in the same run: how fast large arrays come out of memory, and how fast large matrices
are multiplied. Reading a picture and a prompt is arithmetic; a further token is reading: every weight once.
"""

import os
import platform
import statistics
import sys

import numpy as np

from npgemma.fast import threads
from npgemma.params import leaves

PROMPT_TOKENS = 6
# Bytes of a matrix's entry in memory.
WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2, "int8": 1}


def measure(model, batches=(1,), tokens=8, repeats=3, progress=lambda what: None):
    """Time a model's stages.

    Parameters
    ----------
    model : npgemma.Model or torch_ref.Model
    batches : sequence of int
        So many prompts are decoded at once, in turn.
    tokens : int
        Steps that are timed in each.
    repeats : int
        How often picture and prompt are read, after a first time that is not counted.
    progress : callable, optional
        Called with what is measured next.

    Returns
    -------
    dict
        ``machine``, ``model``, ``limits`` and ``stages``: each with median ``seconds``, their ``spread`` (highest less
        lowest, over the median), the ``limit`` in seconds at the measured rates, and the ``percent`` of it that is
        reached; of steps also ``tokens_per_second``. And ``peak_bytes``, of memory.
    """
    about = {"machine": machine(getattr(model, "device", "cpu"))}
    progress("what this machine can do")
    rates = limits(model)
    config, randomness = model.config, np.random.default_rng(0)
    size, highest = config.vision.image_size, min(config.text.vocabulary, config.image_token)
    pixels_BYXC = model.to_activation(randomness.uniform(-1, 1, (1, size, size, 3)))
    prompt = randomness.integers(4, highest, (1, PROMPT_TOKENS)), np.ones((1, PROMPT_TOKENS), dtype=bool)
    ids_BT, valid_BT = map(model.to_backend, prompt)
    parts, params, S = model.paligemma, model.params, config.image_tokens + PROMPT_TOKENS

    def empty_cache(batch):
        """Return a cache with room for picture, prompt and the steps that are timed."""
        return model.sampling.KVCache(config.text, batch, S + tokens + 1, image_BPD)

    def prefill():
        """Read picture and prompt of one row; return what they left behind."""
        cache = empty_cache(1)
        parts.prefill(image_BPD, ids_BT, valid_BT, params, config, cache)
        return cache

    operations = work(config)
    progress("the vision tower")
    vision, image_BPD = _timed(model, lambda: parts.encode_image(pixels_BYXC, params, config), repeats)
    progress("picture and prompt")
    first, read = _timed(model, prefill, repeats)
    stages = {
        "vision tower": _against(vision, operations["vision"] / rates["operations_per_second"]),
        "prefill": _against(first, operations["prefill"] / rates["operations_per_second"]),
    }
    for batch in batches:
        progress(f"tokens of {batch} prompts")
        # All rows go on from the same picture and prompt: what they read takes as long as if they differed.
        cache = empty_cache(batch)
        cache.k_LBSKH[:], cache.v_LBSKH[:], cache.length = read.k_LBSKH, read.v_LBSKH, S
        seconds = []
        for step in range(tokens + 1):
            new = randomness.integers(4, highest, (batch, 1)), np.ones((batch, S + step + 1), dtype=bool)
            ids, valid = map(model.to_backend, new)
            start = model.clock()
            parts.step(ids, valid, params, config, cache)
            seconds.append(model.clock() - start)
        reading = operations["step_weights"] * WIDTHS[model.dtype] / rates["bytes_per_second"]
        multiplying = batch * operations["step"] / rates["operations_per_second"]
        found = _against(seconds[1:], max(reading, multiplying))
        stages[f"token, batch {batch}"] = found | {"tokens_per_second": batch / found["seconds"]}
    about["model"] = {"dtype": model.dtype, "parameters": sum(int(np.prod(x.shape)) for _, _, x in leaves(params))}
    about |= {"limits": rates, "load_seconds": model.load_seconds, "stages": stages, "peak_bytes": model.peak_bytes()}
    return about


def machine(device="cpu"):
    """Return what runs here, and how busy it was before: a load of 1 keeps one core busy."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    if "torch" in sys.modules:
        versions["torch"] = str(sys.modules["torch"].__version__)
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    found = {"processor": platform.machine(), "threads": threads.count(), "load_before": load, "versions": versions}
    if device != "cpu":
        found["accelerator"] = sys.modules["torch"].cuda.get_device_name(device)
    return found


def limits(model, repeats=8):
    """Return how fast this machine reads memory and multiplies matrices, with the model's own kind of numbers.

    Parameters
    ----------
    model : npgemma.Model or torch_ref.Model
    repeats : int
        The best counts: a limit is what is possible.

    Returns
    -------
    dict
        ``bytes_per_second``, ``operations_per_second`` (multiplications and additions).
    """
    # 256 MB in float32, far more than any cache; a product of a matrix and a vector reads the matrix once.
    large, vector = (model.to_activation(np.ones(shape, dtype=np.float32)) for shape in ((8192, 8192), 8192))
    bytes_read = large.itemsize * 8192 * 8192
    reading = min(_seconds(model, lambda: large @ vector, repeats))
    rows = model.to_activation(np.ones((2048, 2048), dtype=np.float32))
    multiplying = min(_seconds(model, lambda: rows @ large[:2048], repeats))
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


def _timed(model, function, repeats):
    """Return how long a function took each time after the first, and what it returned."""
    found = function()
    return _seconds(model, function, repeats), found


def _seconds(model, function, repeats):
    seconds = []
    for _ in range(repeats):
        start = model.clock()
        function()
        seconds.append(model.clock() - start)
    return seconds


def _against(seconds, limit):
    """Compare measured times with the least that is possible."""
    median = statistics.median(seconds)
    spread = (max(seconds) - min(seconds)) / median
    return {"seconds": median, "spread": spread, "limit": limit, "percent": 100 * limit / median}
