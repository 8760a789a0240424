"""From anything that is read to the hub's layout, or to big_vision's: the same numbers, one weight at a time."""

import os
import pathlib

import numpy as np

from conversion import big_vision, codebook
from conversion.folder import open_folder, tokenizer_of
from conversion.layout import with_rows
from conversion.preprocessing import read_preprocessing
from conversion.source import Source
from conversion.write import FILE_DTYPES, cast, write_folder, write_json
from npgemma.errors import InputError
from npgemma.files.reading import reading
from npgemma.files.tokenizer_files import JSON, MODEL
from npgemma.files.writing import replacing
from npgemma.tokenizer import open_tokenizer

TOKENIZER_FILES = MODEL, JSON, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
# The least number that rounds to infinity in each dtype.
PAST = {"float16": 65520.0, "bfloat16": 2.0**128 - 2.0**119, "float32": 2.0**128 - 2.0**103, "float64": np.inf}
# Hugging Face gives the table a row for the image token and one more, and then whole groups of rows.
IMAGE_ROWS, GROUP = 2, 64


def convert(source, destination, dtype=None, progress=None):
    """Write anything that `conversion.read_checkpoint` reads in another layout.

    The destination is a new folder, for the hub's layout, or with a name that ends in ``.npz`` a new file in
    big_vision's; its dtype one of `FILE_DTYPES`, by default that of the embedding table. ``progress(done, total)`` is
    called in bytes read. InputError if the source cannot be read, or the destination exists or cannot be written.

    The hub's table has 64 rows more than big_vision's, which stand for no token. They are left out on the way there,
    and made on the way back: as the mean of the others, about which Hugging Face drew them.
    """
    if not os.fspath(destination):
        raise InputError("the destination has no name: name a new folder, or a file in .npz")
    source, destination = Source.of(source), pathlib.Path(destination)
    config, pairs = open_folder(source)
    tokenizer = tokenizer_of(source)
    tokens = open_tokenizer(tokenizer, config.text.vocabulary).size if tokenizer else 0
    dtype = dtype or {word: name for name, word in FILE_DTYPES.items()}[pairs["text.embedding"][1].dtype]
    _check_new(destination)
    _check_range(pairs, dtype, source.path)
    done, total = 0, sum(tensor.bytes for _, tensor in pairs.values())

    def read(name):
        """Return a stored array in a dtype that holds every number of the file exactly."""
        nonlocal done
        tensor = pairs[name][1]
        done += tensor.bytes
        if progress:
            progress(done, total)
        array = tensor.wide(tensor.array)
        tensor.release(0, tensor.size)
        return array

    if destination.suffix == ".npz":
        _write_npz(destination, config, pairs, read, dtype, tokens)
    else:
        _write_folder(destination, config, read, dtype, source, tokenizer)


def _check_new(destination):
    """Refuse to write over a file, or into a folder that holds a checkpoint."""
    is_file = destination.suffix == ".npz"
    held = os.path.exists(destination / "config.json") or os.path.isfile(destination)
    if os.path.lexists(destination) if is_file else held:
        raise InputError(f"'{destination}' is there already: name a {'file' if is_file else 'folder'} that is not")


def _check_range(pairs, dtype, folder):
    """Refuse weights that the file's dtype cannot hold; where it is their own, they need not be read for that."""
    for _, tensor in pairs.values():
        if tensor.dtype == FILE_DTYPES[dtype]:
            continue
        array = tensor.wide(tensor.array)
        largest = max(array.max(), -array.min())
        tensor.release(0, tensor.size)
        if not largest < PAST[dtype]:
            advice = "--dtype bfloat16 holds it" if largest < PAST["bfloat16"] else "download the checkpoint again"
            raise InputError(
                f"tensor {tensor.name} in '{folder}' holds {largest:g}, which {dtype} does not hold: {advice}"
            )


def _write_npz(path, config, pairs, read, dtype, tokens):
    rows = min(config.text.vocabulary, max(config.image_token, tokens))
    smaller = with_rows(config, rows)

    def array(name):
        """Return an array in our layout and the file's dtype."""
        stored = cast(read(name), dtype)
        return stored[:rows] if name == "text.embedding" else pairs[name][0].view(stored)

    with replacing(path) as file:
        big_vision.write_file(file, smaller, array, "V2" if dtype == "bfloat16" else dtype)


def _write_folder(folder, config, read, dtype, source, tokenizer):
    preprocessing = read_preprocessing(source, config)
    rows = config.text.vocabulary
    if rows == config.image_token:
        rows = -(-(rows + IMAGE_ROWS) // GROUP) * GROUP
    larger = with_rows(config, rows)

    def array(leaf):
        """Return a stored array, the table with rows for the image token."""
        stored = read(leaf.name)
        if leaf.name != "text.embedding" or len(stored) == rows:
            return stored
        mean = stored.mean(axis=0, dtype=np.float64).astype(stored.dtype)
        return np.concatenate([stored, np.broadcast_to(mean, (rows - len(stored), len(mean)))])

    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy_tokenizer(tokenizer, folder)
        path = source.file(codebook.FILE)
        if os.path.lexists(path):
            _copy(path, folder / codebook.FILE)
    except OSError as problem:
        raise InputError(f"cannot write '{folder}': {problem.strerror or problem}") from None
    ends = list(config.eos_tokens)
    generation = {"bos_token_id": config.bos_token, "pad_token_id": config.pad_token}
    generation |= {"_from_model_config": True, "eos_token_id": ends if len(ends) > 1 else ends[0]}
    write_json(folder / "generation_config.json", generation)
    # Its config.json comes last, without which no reader takes a folder for a checkpoint.
    write_folder(folder, larger, array, dtype, preprocessing=preprocessing)


def _copy_tokenizer(tokenizer, folder):
    """Copy the tokenizer's files: the one that was given, or all of the checkpoint's folder."""
    if tokenizer is None:
        return
    tokenizer = pathlib.Path(tokenizer)
    if tokenizer.is_file():
        _copy(tokenizer, folder / (JSON if tokenizer.suffix == ".json" else MODEL))
        return
    for name in TOKENIZER_FILES:
        if os.path.exists(tokenizer / name):
            _copy(tokenizer / name, folder / name)


def _copy(path, copy):
    with reading(path, "a file that can be copied", "download it again"):
        content = pathlib.Path(path).read_bytes()
    with replacing(copy) as file:
        file.write(content)
