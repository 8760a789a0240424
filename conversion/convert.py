"""From anything that is read to the hub's layout, or to big_vision's: the same numbers, one weight at a time."""

import os
import pathlib
import shutil

import numpy as np

from conversion import big_vision, codebook
from conversion.folder import open_folder, tokenizer_of
from conversion.layout import with_rows
from conversion.preprocessing import read_preprocessing
from conversion.source import Source
from conversion.write import FILE_DTYPES, cast, write_folder, write_json
from npgemma.errors import InputError
from npgemma.files.tokenizer_files import JSON, MODEL
from npgemma.files.writing import replacing
from npgemma.tokenizer import open_tokenizer

TOKENIZER_FILES = MODEL, JSON, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
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
    source, destination = Source.of(source), pathlib.Path(destination)
    config, pairs = open_folder(source)
    tokenizer = tokenizer_of(source)
    tokens = open_tokenizer(tokenizer, config.text.vocabulary).size if tokenizer else 0
    dtype = dtype or {word: name for name, word in FILE_DTYPES.items()}[pairs["text.embedding"][1].dtype]
    done, total = 0, sum(tensor.bytes for _, tensor in pairs.values())

    def read(name):
        """Return a stored array in float32, which holds every number of a file exactly."""
        nonlocal done
        tensor = pairs[name][1]
        done += tensor.bytes
        if progress:
            progress(done, total)
        array = tensor.wide(tensor.array).astype(np.float32, copy=False)
        tensor.release(0, tensor.size)
        return array

    if destination.suffix == ".npz":
        _write_npz(destination, config, pairs, read, dtype, tokens)
    else:
        _write_folder(destination, config, read, dtype, source, tokenizer)


def _write_npz(path, config, pairs, read, dtype, tokens):
    if os.path.lexists(path):
        raise InputError(f"'{path}' is there already: name a file that is not")
    rows = min(config.text.vocabulary, max(config.image_token, tokens))
    smaller = with_rows(config, rows)

    def array(name):
        """Return an array in our layout and the file's dtype."""
        stored = cast(read(name), dtype)
        return stored[:rows] if name == "text.embedding" else pairs[name][0].view(stored)

    with replacing(path) as file:
        big_vision.write_file(file, smaller, array, "V2" if dtype == "bfloat16" else dtype)


def _write_folder(folder, config, read, dtype, source, tokenizer):
    if (folder / "config.json").exists() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"'{folder}' is there already: name a folder that is not")
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
        mean = stored.mean(axis=0, dtype=np.float64).astype(np.float32)
        return np.concatenate([stored, np.broadcast_to(mean, (rows - len(stored), len(mean)))])

    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy_tokenizer(tokenizer, folder)
        path = source.file(codebook.FILE)
        if path.exists():
            shutil.copyfile(path, folder / codebook.FILE)
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
        shutil.copyfile(tokenizer, folder / (JSON if tokenizer.suffix == ".json" else MODEL))
        return
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)
