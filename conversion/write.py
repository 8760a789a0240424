"""Checkpoint folders in the hub's layout: from a tree of weights, or from nothing but sizes."""

import json
import pathlib

import numpy as np

from conversion import safetensors_file
from conversion.hub_config import to_hub
from conversion.layout import StoredLeaf, stored_leaves
from npgemma.config import Config
from npgemma.fast import dtypes
from npgemma.fast.bfloat16 import BFloat16Weight, narrow
from npgemma.fast.int8 import HIGHEST, Int8Weight
from npgemma.files.writing import replacing
from npgemma.image import PUBLISHED
from npgemma.params import Params, build, leaves

FILE_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
SHARD_BYTES = 5_000_000_000  # the hub's customary size


def write_folder(folder, config, arrays, dtype="float32", shard_bytes=SHARD_BYTES, preprocessing=PUBLISHED):
    """Write ``config.json``, ``preprocessor_config.json`` and the weights into a folder, which is made if need be.

    ``arrays(leaf)`` returns the stored array of a `conversion.layout.StoredLeaf`; called once for each, in order. A
    file grows no larger than ``shard_bytes``, unless one tensor is.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = safetensors_file.NUMPY[FILE_DTYPES[dtype]]
    shards = _shards(stored_leaves(config).values(), np.dtype(size).itemsize, shard_bytes)
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    names = names if len(names) > 1 else ["model.safetensors"]
    for name, shard in zip(names, shards):
        entries = [(leaf.stored_name, FILE_DTYPES[dtype], leaf.stored_shape) for leaf in shard]
        safetensors_file.write(folder / name, entries, (cast(arrays(leaf), dtype) for leaf in shard))
    if len(names) > 1:
        places = {leaf.stored_name: name for name, shard in zip(names, shards) for leaf in shard}
        total = sum(np.prod(leaf.stored_shape) for shard in shards for leaf in shard) * np.dtype(size).itemsize
        write_json(
            folder / "model.safetensors.index.json", {"metadata": {"total_size": int(total)}, "weight_map": places}
        )
    write_json(folder / "preprocessor_config.json", preprocessor(config, preprocessing))
    write_json(folder / "config.json", to_hub(config, dtype))


def save(folder, params, config, dtype="float32"):
    """Write a tree of NumPy arrays as a checkpoint folder."""
    tree = {name: array for name, _, array in leaves(params)}
    write_folder(folder, config, lambda leaf: leaf.store(tree[leaf.name]), dtype)


def initial(leaf: StoredLeaf, randomness: np.random.Generator, spread: float = 0.1) -> np.ndarray:
    """Return a random stored float32 array whose outputs are about as large as its inputs.

    The spread is the standard deviation of norms about their neutral value and of biases about zero: never exactly
    neutral, or a test would not see them. 0 for training.
    """
    noise = randomness.standard_normal(leaf.stored_shape, dtype=np.float32)
    if leaf.kind == "weight":
        # Stored layouts put outputs first: the rest is what is summed over.
        return noise * np.float32(np.prod(leaf.stored_shape[1:]) ** -0.5)
    if leaf.name == "text.norm" and spread:
        # The embedding table is the output head too, so random weights would answer every token with itself, if the
        # factors of the norm between them, 1 + what is stored, were not of either sign.
        return noise - 1
    # LayerNorm's factor is stored as it is, RMSNorm's (Gemma) as its difference from 1.
    neutral = 1.0 if leaf.kind == "gain" and leaf.name.startswith("vision.") else 0.0
    return neutral + np.float32(spread) * noise


def random_params(config, seed, dtype="float32", spread=0.1):
    """Return a tree of random weights in memory, for tests and for training to start from."""
    randomness, stored = np.random.default_rng(seed), stored_leaves(config)
    return build(
        config, lambda leaf: stored[leaf.name].view(initial(stored[leaf.name], randomness, spread)).astype(dtype)
    )


def stand_in_params(config: Config, dtype: str = "float32") -> Params:
    """Return a tree of the right sizes filled with a short random sequence over and over, to measure speed.

    ``dtype`` is as for `conversion.read_folder`.
    """
    pool, stored = np.random.default_rng(0).standard_normal(2**20, dtype=np.float32), stored_leaves(config)

    def fill(values, shape):
        return np.resize(values, int(np.prod(shape))).reshape(shape)

    def make(leaf):
        shape, view = stored[leaf.name].stored_shape, stored[leaf.name].view
        values = pool[: int(np.prod(shape))] * np.float32(np.prod(shape[1:]) ** -0.5 if leaf.kind == "weight" else 1)
        if dtype == "bfloat16" and leaf.kind == "weight":
            return BFloat16Weight(view(fill(narrow(values), shape)))
        if dtype == "int8" and leaf.kind == "weight":
            factor = np.abs(values).max() / HIGHEST
            number_NK = fill((values / factor).astype(np.int8), (shape[0], int(np.prod(shape[1:]))))
            return Int8Weight(number_NK, np.full(shape[0], factor), lambda array: view(array.reshape(shape)))
        return view(fill(values.astype(dtypes.DTYPES[dtype].activations), shape))

    return build(config, make)


def preprocessor(config, preprocessing=PUBLISHED):
    """Return the hub's ``preprocessor_config.json``."""
    size = config.vision.image_size
    return {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(preprocessing.mean),
        "image_processor_type": "SiglipImageProcessor",
        "image_seq_length": config.image_tokens,
        "image_std": list(preprocessing.deviation),
        "processor_class": "PaliGemmaProcessor",
        "resample": preprocessing.resample,
        "rescale_factor": preprocessing.factor,
        "size": {"height": size, "width": size},
    }


def cast(array, dtype):
    """Bring a floating-point array to a file's dtype; bfloat16 as its bits."""
    return narrow(array) if dtype == "bfloat16" else array.astype(dtype, copy=False)


def _shards(stored, item_bytes, shard_bytes):
    """Share out tensors over files, in order."""
    shards, used = [[]], 0
    for leaf in stored:
        size = int(np.prod(leaf.stored_shape)) * item_bytes
        if shards[-1] and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(leaf)
        used += size
    return shards


def write_json(path, document):
    """Write a JSON file of the hub's style."""
    with replacing(path) as file:
        file.write((json.dumps(document, indent=2, sort_keys=True) + "\n").encode())
