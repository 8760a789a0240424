"""A checkpoint in both backends in one dtype, as far as memory allows."""

import dataclasses
import math
from dataclasses import dataclass, field

import npgemma
from conversion.folder import open_folder, plain, tokenizer_of
from conversion.memory import available_memory
from npgemma.machinery.backend import numpy_backend
from npgemma.params import build, declared, map_leaves
from npgemma.porting.backends import twin_of
from npgemma.porting.bounds import BOUNDS, DEVICE_FACTOR

# Of the memory that is free, what the largest things may take; the rest is for products and their temporary arrays.
SHARE = 0.8


class Skipped(Exception):
    """Says why a check cannot be made here."""


@dataclass(frozen=True)
class Both:
    """Both backends with the same weights."""

    numpy: npgemma.Model
    torch: npgemma.Model
    bound: float  # how far their arrays may be apart, relative L2
    tokens: int = 4  # the longest answer to ask for
    about: dict = field(default_factory=dict)  # how much of the model this is, if not all


def load(source, dtype, device="cpu"):
    """Load `Both`, the weights in memory once on the CPU, in float64 block by block; `Skipped` if they do not fit.

    In bfloat16 NumPy holds the same weights as the twin, but calculates in float32.
    """
    config, free = open_folder(source)[0], available_memory()
    if dtype == "float64":
        blocks = fitting_blocks(config, free)
        if not all(blocks.values()):
            raise Skipped(f"needs memory for a block in float64, {free / 1e9:.0f} GB are free")
        return in_float64(source, blocks)
    needed = needed_memory(config, dtype)
    if free is not None and free < needed:
        raise Skipped(f"needs {needed / 1e9:.0f} GB of memory in {dtype}, {free / 1e9:.0f} GB are free")
    model = npgemma.load(source, dtype=dtype)
    return Both(model, twin_of(model, device), BOUNDS[dtype] * DEVICE_FACTOR[device])


class _Blocks:
    """Blocks whose weights are read when a pass comes to them and forgotten when it goes on."""

    def __init__(self, names, read):
        self.names, self.read = names, read

    def __iter__(self):
        return map(self.read, self.names)


def in_float64(source, blocks):
    """Load `Both` for a first token, so many blocks of each tower, the weights of one block in memory at a time."""
    from torch_ref.backend import to_torch, torch_backend

    config, stored = open_folder(source)
    layers = {"vision": config.vision.layers, "text": config.text.layers}
    fewer = {tower: dataclasses.replace(getattr(config, tower), layers=count) for tower, count in blocks.items()}
    config = dataclasses.replace(config, **fewer)
    names = build(config, lambda leaf: leaf.name)

    def read(part):
        return map_leaves(lambda name: stored[name][0].view(plain(stored[name][1], "float64")), part)

    # What is not of a block is in memory once, for both.
    without = {tower: dataclasses.replace(getattr(names, tower), blocks=()) for tower in blocks}
    rest = read(dataclasses.replace(names, **without))

    def model(backend, convert):
        towers = {}
        for tower in blocks:
            each = _Blocks(getattr(names, tower).blocks, lambda block: convert(read(block)))
            towers[tower] = dataclasses.replace(getattr(convert(rest), tower), blocks=each)
        params = dataclasses.replace(convert(rest), **towers)
        return npgemma.Model(params, config, backend, tokenizer_of(source) or source.path, source=source)

    reference = model(numpy_backend("float64"), lambda part: part)
    twin = model(torch_backend("float64"), lambda part: to_torch(part, "float64"))
    return Both(reference, twin, BOUNDS["float64"], 1, {"blocks": blocks, "of_blocks": layers})


def fitting_blocks(config, free):
    """Return how many blocks of each tower fit; where the system does not say what is free, all."""
    layers = {"vision": config.vision.layers, "text": config.text.layers}
    if free is None:
        return layers
    # The table; and of blocks the old one, the new one and what it is made from.
    held = config.text.vocabulary * config.text.width + 3 * max(block_sizes(config).values())
    part = (SHARE * free / 8 - held) / trace_size(config)
    return {tower: max(0, int(min(1, part) * count)) for tower, count in layers.items()}


def needed_memory(config, dtype):
    """Return how many bytes are needed: the weights; and a trace, or the logits of two rows in three copies.

    In bfloat16 a trace of the twin too, should its operations have to be judged by themselves.
    """
    weights = sum(math.prod(leaf.shape) for leaf in declared(config)) * {"float32": 4, "bfloat16": 2}[dtype]
    logits = 2 * 3 * (config.image_tokens + 32) * config.text.vocabulary
    traces = trace_size(config) * {"float32": 1, "bfloat16": 2}[dtype]
    return int(1.05 * (weights + 4 * max(traces, logits)))


def block_sizes(config):
    """Return how many numbers the weights of a block of each tower have."""
    sizes = {"vision": 0, "text": 0}
    for leaf in declared(config):
        tower, _, path = leaf.name.partition(".")
        if path.startswith("blocks.0."):
            sizes[tower] += math.prod(leaf.shape)
    return sizes


def trace_size(config):
    """Return about how many numbers the trace of an answer has."""
    vision, text, T = config.vision, config.text, config.image_tokens
    of_vision = T * (18 * vision.width + 3 * vision.heads * T + vision.mlp_width)
    heads = text.query_heads * text.head_width
    T += 32
    of_text = T * (9 * text.width + 8 * heads + 3 * text.query_heads * T + 2 * text.mlp_width)
    return vision.layers * of_vision + text.layers * of_text
