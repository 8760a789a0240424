"""safetensors files: mapped for reading, streamed for writing.

The library checks every header (lengths, offsets, shapes, overlaps) before we believe it. We map the file ourselves,
because the library copies each tensor and its NumPy side does not know bfloat16.
"""

import json
import math
import mmap
import os
import pathlib
import tempfile
from dataclasses import dataclass

import numpy as np
import safetensors

from conversion.refusals import check_metadata
from npgemma.errors import InputError
from npgemma.fast.bfloat16 import widen
from npgemma.files.reading import reading
from npgemma.files.writing import check_writable, replacing

# Of a checkpoint's file; the largest has 1,500. A parser takes in all of their list at once.
MOST_TENSORS, LONGEST_ENTRY, MOST_LETTERS = 30_000, 500, 500
# The file's words for dtypes. bfloat16 is held as its bits: see npgemma/fast/bfloat16.py.
NUMPY = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "uint16", "BOOL": "bool", "U8": "uint8", "I8": "int8",
    "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32", "U64": "uint64", "I64": "int64",
}  # fmt: skip
WORDS = {name: word for word, name in NUMPY.items() if word != "BF16"}


class Stored:
    """What tensors of every source have in common."""

    mapped = False  # calculated when it is read

    @property
    def size(self):
        """Number of entries."""
        return math.prod(self.shape)

    def wide(self, part):
        """Return a part of the array as numbers that NumPy can calculate with: bfloat16 as float32."""
        return widen(part) if self.dtype == "BF16" else part

    def single(self, part):
        """Return a part of the array as float32; what that cannot hold, of float64, is infinite."""
        with np.errstate(over="ignore"):
            return self.wide(part).astype(np.float32, copy=False)

    def release(self, start, stop):
        """Give back the memory into which entries ``start`` to ``stop`` were read, if they can be read again."""


@dataclass(frozen=True)
class Tensor(Stored):
    """A tensor in a file, not yet read."""

    name: str
    dtype: str  # the file's word: "F32", "F16", "BF16", ...
    shape: tuple[int, ...]
    array: np.ndarray  # mapped: read only, and in memory only where it is touched
    file: mmap.mmap
    offset: int  # in the file, in bytes
    mapped = True

    def release(self, start, stop):
        """Give back the memory of these entries."""
        if hasattr(mmap, "MADV_DONTNEED"):
            edges = (self.offset + entry * self.array.itemsize for entry in (start, stop))
            first, last = (edge // mmap.PAGESIZE * mmap.PAGESIZE for edge in edges)
            if last > first:
                self.file.madvise(mmap.MADV_DONTNEED, first, last - first)

    @property
    def bytes(self):
        """Size in the file."""
        return self.array.nbytes


def read(path, most=MOST_TENSORS):
    """Map a file and return its tensors; InputError if it is missing, truncated, or not a safetensors file."""
    path = pathlib.Path(path)
    missing = f"the weights '{path}' are missing: download the checkpoint again"
    with reading(path, "a complete safetensors file", "copy it again", missing), open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if most * LONGEST_ENTRY < start <= os.path.getsize(path):
            raise InputError(f"'{path}' has a list of tensors of {start} bytes, too many for {most}: copy it again")
        checked = safetensors.safe_open(path, framework="numpy")
        names = checked.offset_keys()
        if len(names) > most:
            raise InputError(f"'{path}' holds {len(names)} tensors: no checkpoint has more than {most}")
        check_metadata(checked.metadata() or {}, path)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        tensors = []
        for name in names:
            entry = checked.get_slice(name)
            dtype, shape = entry.get_dtype(), tuple(entry.get_shape())
            if dtype not in NUMPY:
                raise InputError(
                    f"tensor {name} in '{path}' is {dtype}; npgemma reads float64, float32, float16 and bfloat16"
                )
            if len(name) > MOST_LETTERS:
                raise InputError(f"tensor {name} in '{path}' has a name of more than {MOST_LETTERS} letters")
            array = np.ndarray(shape, NUMPY[dtype], content, start)
            tensors.append(Tensor(name, dtype, shape, array, content, start))
            start += array.nbytes
    return tensors


def write(path, entries, arrays, metadata=None):
    """Write a file from arrays that come one at a time, so that they need never be in memory together.

    Entries are (name, dtype in the file's words, shape), in the order of the arrays. The file appears under its name
    only once it is complete.
    """
    metadata = metadata or {"format": "pt"}
    # A path or a prompt can hold bytes that are no text, which would make the file unreadable.
    header = {"__metadata__": {k: v.encode("utf-8", "replace").decode() for k, v in metadata.items()}}
    end = 0
    for name, dtype, shape in entries:
        start, end = end, end + math.prod(shape) * np.dtype(NUMPY[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the data are aligned
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)


class Spool:
    """Arrays of a run that is still going on, kept on disk until their number is known and a file can be written."""

    def __init__(self, path):
        self.path, self.entries = pathlib.Path(path), []
        check_writable(path)
        try:
            self.waiting = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 closed by close()
        except OSError as problem:
            raise InputError(f"cannot write '{path}': {problem.strerror}") from None

    def add(self, name, array):
        """Take an array."""
        self.entries.append((name, WORDS[array.dtype.name], array.shape))
        self.waiting.write(np.ascontiguousarray(array).data)

    def close(self, metadata=None):
        """Write the file."""
        self.waiting.seek(0)
        write(self.path, self.entries, map(self._next, self.entries), metadata)
        self.waiting.close()

    def _next(self, entry):
        _, word, shape = entry
        return np.frombuffer(self.waiting.read(math.prod(shape) * np.dtype(NUMPY[word]).itemsize), np.uint8)
