"""A checkpoint folder in the hub's layout, read strictly: nothing missing, nothing left over, shapes as expected."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import numpy as np

from conversion import big_vision, codebook, hub_config, lora, refusals, safetensors_file
from conversion.buffers import without_buffers
from conversion.head import table_of
from conversion.layout import canonical, stored_leaves
from conversion.memory import available_memory
from conversion.preprocessing import read_preprocessing
from conversion.source import SMALL, Source
from npgemma.config import Config
from npgemma.errors import InputError
from npgemma.fast.bfloat16 import BFloat16Weight, narrow, widen_in_pieces
from npgemma.fast.dtypes import DTYPES
from npgemma.fast.int8 import quantize
from npgemma.files.reading import read_json
from npgemma.files.tokenizer_files import check_other, has_tokenizer
from npgemma.image import Preprocessing
from npgemma.params import MaskParams, Params, build
from npgemma.tokenizer import Tokenizer, open_tokenizer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
INDEX_SHAPE = {"weight_map": {str: str}, "metadata": ({"total_size": object}, None)}
# A tensor's dtype, in the file's words.
ACCEPTED = ("F64", "F32", "F16", "BF16")


def read_checkpoint(
    folder: str | os.PathLike[str] | Source,
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
    resize: str | None = None,
) -> tuple[Params, Config, MaskParams | None, Tokenizer | None, Preprocessing]:
    """Read sizes, tokenizer, mask codebook and weights; small files first, so that their errors are reported soon.

    Parameters
    ----------
    folder, dtype, progress
        As for `read_folder`.
    resize : str, optional
        As for `conversion.preprocessing.read_preprocessing`.

    Returns
    -------
    params : Params
    config : Config
    mask_params : MaskParams or None
        None where the folder has no mask codebook.
    tokenizer : npgemma.tokenizer.Tokenizer or None
        None where the folder has no tokenizer.
    preprocessing : npgemma.image.Preprocessing

    Raises
    ------
    InputError
        As `read_folder`, `conversion.codebook.read_codebook` and `npgemma.tokenizer.open_tokenizer`.
    """
    source = Source.of(folder)
    config, _ = open_folder(source)
    tokenizer = open_words(source, config)
    path = source.file(codebook.FILE)
    mask_params = codebook.read_codebook(path) if os.path.lexists(path) else None
    preprocessing = read_preprocessing(source, config, resize)
    return *read_folder(source, dtype, progress), mask_params, tokenizer, preprocessing


def read_folder(
    folder: str | os.PathLike[str] | Source,
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Params, Config]:
    """Read the weights and sizes of a checkpoint.

    Parameters
    ----------
    folder : str, os.PathLike or Source
        Holds ``config.json`` and either ``model.safetensors`` or shards with their index; or an adapter over such a
        folder.
    dtype : str
        ``float32``, ``float64``, ``bfloat16`` (matrices as `npgemma.fast.bfloat16.BFloat16Weight`, the rest as float32)
        or ``int8`` (matrices as `npgemma.fast.int8.Int8Weight`).
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes.

    Returns
    -------
    params : Params
        float32 of a float32 file is the file itself, mapped; everything else is converted.
    config : Config

    Raises
    ------
    InputError
        If anything about the folder is not as expected; no weight has been read then.
    """
    source = Source.of(folder)
    config, tensors = open_folder(source)
    _check_memory(tensors, dtype, source.path)
    total, done = sum(tensor.bytes for _, tensor in tensors.values()), 0

    def make(leaf):
        nonlocal done
        stored, tensor = tensors[leaf.name]
        if dtype == "int8" and leaf.kind == "weight":
            array = quantize(tensor.array, stored.view, tensor.single, tensor.release)
        elif dtype == "bfloat16" and leaf.kind == "weight":
            bits = tensor.array if tensor.dtype == "BF16" else narrow(tensor.single(tensor.array))
            array = BFloat16Weight(stored.view(bits))
        else:
            array = stored.view(plain(tensor, DTYPES[dtype].activations))
        done += tensor.bytes
        if progress:
            progress(done, total)
        return array

    return build(config, make), config


def open_folder(folder):
    """Return the sizes of a checkpoint, and by our names every stored leaf with its tensor: checked, not read."""
    source = Source.of(folder)
    if source.is_npz:
        config, pairs = big_vision.open_file(source.weights, source.config)
        return lora.merge(config, pairs, source.adapter) if source.adapter else (config, pairs)
    config = read_config(source)
    tensors = without_buffers(read_tensors(source.weights), config, source.weights)
    pairs = match(stored_leaves(config), tensors, source.weights)
    return lora.merge(config, pairs, source.adapter) if source.adapter else (config, pairs)


def tokenizer_of(source):
    """Return the place of a checkpoint's tokenizer: the file given, the adapter's folder or the base's, if any."""
    if source.tokenizer is not None:
        return source.tokenizer
    return next((folder for folder in (source.adapter, source.weights) if folder and has_tokenizer(folder)), None)


def open_words(source, config):
    """Open a checkpoint's tokenizer, if it has one; InputError if an adapter's contradicts its base's."""
    place = tokenizer_of(source)
    tokenizer = open_tokenizer(place, config.text.vocabulary) if place else None
    if tokenizer and source.adapter and source.tokenizer is None:
        check_other(tokenizer, source.weights if place == source.adapter else source.adapter)
    return tokenizer


def read_config(folder):
    """Read ``config.json``, and the end tokens of ``generation_config.json``, which a folder need not have."""
    source = Source.of(folder)
    folder = source.weights
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "nothing"
        raise InputError(f"a checkpoint should be a folder; at '{folder}' there is {found}")
    path = folder / "config.json"
    document = read_json(path, most=SMALL)
    config = hub_config.from_hub(document, f"'{path}'")
    refusals.check_config(document, folder)
    path = source.file("generation_config.json")
    if os.path.lexists(path):
        document = read_json(path, hub_config.GENERATION_SHAPE, SMALL)
        config = hub_config.with_end_tokens(config, document, f"'{path}'")
    return config


def read_tensors(folder):
    """Return all tensors of a folder's files by their stored names, not yet read.

    InputError if a file is missing or damaged, or the index names a file outside the folder or a tensor that its file
    does not hold.
    """
    folder = pathlib.Path(folder)
    if os.path.lexists(folder / SINGLE):
        return {tensor.name: tensor for tensor in safetensors_file.read(folder / SINGLE)}
    if not os.path.lexists(folder / INDEX):
        refusals.refuse_without_weights(folder, f"{SINGLE}, or shards with {INDEX}")
    index = read_json(folder / INDEX, INDEX_SHAPE, SMALL)
    places, tensors, shards = index["weight_map"], {}, {}
    for shard in sorted(set(places.values())):
        if pathlib.PurePath(shard).name != shard or "\\" in shard or shard in ("", ".", ".."):
            raise InputError(f"'{folder / INDEX}' names '{shard}', which is not a file name inside the folder")
        shards[shard] = safetensors_file.read(folder / shard)
        for tensor in shards[shard]:
            if places.get(tensor.name) != shard:
                raise InputError(
                    f"'{folder / shard}' holds {tensor.name}, which {INDEX} does not place there: are these the shards "
                    "of two checkpoints? Download them again"
                )
            tensors[tensor.name] = tensor
    for name, shard in places.items():
        if name not in tensors:
            raise InputError(f"{INDEX} places {name} in '{shard}', which does not hold it: download '{folder}' again")
    refusals.check_shards(index, shards, folder)
    return tensors


def describe(folder):
    """Return what a checkpoint holds, without reading any weight: sizes, and every tensor with our name for it."""
    config, pairs = open_folder(folder)
    pairs = pairs.values()
    tensors = [
        {
            "name": leaf.name,
            "axes": leaf.axes,
            "stored_name": tensor.name,
            "stored_axes": leaf.stored_axes,
            "shape": list(tensor.shape),
            "dtype": tensor.dtype,
            "bytes": tensor.bytes,
        }
        for leaf, tensor in pairs
    ]
    return {
        "checkpoint": str(Source.of(folder).path),
        "config": dataclasses.asdict(config) | {"image_tokens": config.image_tokens},
        "parameters": sum(tensor.size for _, tensor in pairs),
        "bytes": sum(tensor.bytes for _, tensor in pairs),
        "tensors": tensors,
    }


def match(leaves, tensors, folder):
    """Pair every array of the tree with its tensor, by our names, and refuse whatever does not pair."""
    refusals.check_names(tensors, folder)
    by_name = {}
    for tensor in tensors.values():
        other = by_name.setdefault(canonical(tensor.name), tensor)
        if other is not tensor:
            raise InputError(f"'{folder}' holds one tensor under two names: {other.name} and {tensor.name}")
    table = table_of(by_name, leaves["text.embedding"], folder)
    pairs = {}
    for leaf in leaves.values():
        tensor = table if leaf.name == "text.embedding" else by_name.pop(leaf.stored_name, None)
        if tensor is None:
            raise InputError(
                f"tensor {leaf.stored_name} of shape {leaf.stored_shape} is missing from '{folder}': is config.json "
                "this checkpoint's?"
            )
        if tensor.dtype not in ACCEPTED:
            expected = ", ".join(ACCEPTED)
            raise InputError(f"tensor {tensor.name} in '{folder}' should be {expected}, found {tensor.dtype}")
        if tensor.shape != leaf.stored_shape:
            raise InputError(
                f"tensor {tensor.name} in '{folder}' should have the shape {leaf.stored_shape} by config.json, found "
                f"{tensor.shape}"
            )
        pairs[leaf.name] = leaf, tensor
    if by_name:
        names = [tensor.name for tensor in by_name.values()]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(f"'{folder}' holds a tensor that PaliGemma does not have: {names[0]}{more}")
    return pairs


def plain(tensor, dtype):
    """Read a tensor as float32 or float64, without a copy where the file has that dtype."""
    if tensor.dtype == "BF16" and dtype == "float32":
        return widen_in_pieces(tensor.array, tensor.release)
    array = tensor.single(tensor.array) if dtype == "float32" else tensor.wide(tensor.array).astype(dtype, copy=False)
    # A file may place a tensor at an odd address, which NumPy can read but BLAS and torch cannot.
    return np.require(array, requirements="A")


def _check_memory(tensors, dtype, folder):
    """Refuse to begin what would not fit; mapped arrays need no memory of their own."""
    free, needed = available_memory(), _bytes(tensors, dtype, in_place=0)
    if free is None or needed <= free:
        return
    narrower = list(DTYPES)[list(DTYPES).index(dtype) + 1 :]
    # Also what is mapped should stay in memory, or every token reads it from the disk again.
    fitting = [(name, size) for name in narrower if (size := _bytes(tensors, name, in_place=1)) <= free]
    found = f"the weights in '{folder}' need {needed / 1e9:.1f} GB as {dtype}, but {free / 1e9:.1f} GB are free"
    advice = ", and nothing narrower would fit"
    if fitting:
        name, size = fitting[0]
        only = "" if DTYPES[name].torch else "--backend numpy "
        advice = f"; {only}--dtype {name} would fit, with {size / 1e9:.1f} GB"
    raise InputError(found + advice)


def _bytes(tensors, dtype, in_place):
    """Return how much memory the weights take; what is used as it lies in the file is counted ``in_place`` times."""
    total = 0
    for leaf, tensor in tensors.values():
        held = DTYPES[dtype if leaf.kind == "weight" else DTYPES[dtype].activations].bytes
        mapped = tensor.mapped and (held, tensor.dtype) in ((2, "BF16"), (4, "F32"), (8, "F64"))
        total += (in_place if mapped else 1) * tensor.size * held
    return total
