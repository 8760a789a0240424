"""npz files from outside: what they hold by their headers alone, checked before anything is unpacked."""

import contextlib
import io
import math
import os
import re
import zipfile
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.reading import reading

# Bytes of a zip's list of members, letters of a name in it, bytes of an array's header: parsers take all in at once.
MOST_LISTED, MOST_LETTERS, MOST_HEADER = 16_000_000, 500, 10_000
# What compressed arrays may unpack to, where their reader says nothing else.
MOST_BYTES = 2_000_000_000
PIECE = 2**20
MAGIC = b"\x93NUMPY"
# NumPy reads this with Python's own parser, which a damaged text can bring to anything.
HEADER = re.compile(
    r"\{ *'descr': *'([^'\\]{2,20})', *'fortran_order': *(True|False), *'shape': *\(([\dL, ]{0,999})\),? *\}\s*"
)


class Entry(NamedTuple):
    """An array of an npz file, not yet read."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str  # "C" or "F"
    start: int  # of its numbers in the member
    bytes: int


def read_npz(
    path: str | os.PathLike[str],
    kind: str,
    advice: str,
    missing: str | None = None,
    only: Collection[str] | None = None,
    most_bytes: int | None = None,
    most_listed: int = MOST_LISTED,
) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by name, or of those that it has ``only`` some; bfloat16 as ``V2``.

    They may take ``most_bytes``, by default what the file takes on disk, and `MOST_BYTES` at least; their list as
    `opening` says. InputError as `npgemma.files.reading.reading`; and if an array is too large or holds objects.
    """
    with opening(path, kind, advice, missing, most_listed) as archive:
        found = entries(archive, path, only)
        most_bytes = max(os.path.getsize(path), MOST_BYTES) if most_bytes is None else most_bytes
        total = sum(entry.bytes for entry in found.values())
        if total > most_bytes:
            raise InputError(
                f"the arrays in '{path}' take {total} bytes, but should take {most_bytes} at most: {advice}"
            )
        return {name: _unpacked(archive, entry) for name, entry in found.items()}


@contextlib.contextmanager
def opening(
    path: str | os.PathLike[str], kind: str, advice: str, missing: str | None = None, most_listed: int = MOST_LISTED
) -> Iterator[zipfile.ZipFile]:
    """Open an npz file inside `npgemma.files.reading.reading`, if its list of members has so many bytes at most."""
    with reading(path, kind, advice, missing), _File(path) as file:
        file.most = most_listed
        with zipfile.ZipFile(file) as archive:
            file.most = MOST_LISTED
            yield archive


def entries(
    archive: zipfile.ZipFile, path: str | os.PathLike[str], only: Collection[str] | None = None, prefix: str = ""
) -> dict[str, Entry]:
    """Return the arrays of an npz file by name, less a prefix, without reading more than their headers."""
    found: dict[str, Entry] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy").removeprefix(prefix)
        if only is not None and name not in only:
            continue
        try:
            if name in found:
                raise InputError("is there twice: download it again")
            if len(name) > MOST_LETTERS:
                raise InputError(f"has a name of {len(name)} letters: {MOST_LETTERS} are read")
            found[name] = _entry(archive, info)
        except InputError as problem:
            raise InputError(f"array {shown(name, 80)} in '{path}' {problem}") from None
    return found


class _File(io.FileIO):
    """A file of which a zip's list of members is not read whatever its size."""

    most = MOST_LISTED

    def read(self, size: int | None = -1) -> bytes:
        """Read so many bytes, if they are no more than such a list may have."""
        if size is not None and size > self.most:
            raise ValueError(f"it has a list of members of {size} bytes")
        return super().read(size) or b""


def _entry(archive, info):
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"is compressed by method {info.compress_type}: write it again with numpy.savez")
    with archive.open(info) as member:
        if member.read(len(MAGIC)) != MAGIC or (version := member.read(2)) not in (b"\1\0", b"\2\0", b"\3\0"):
            raise InputError("is not in NumPy's format, .npy: write it again with numpy.savez")
        width = 2 if version == b"\1\0" else 4
        size = int.from_bytes(member.read(width), "little")
        text = member.read(min(size, MOST_HEADER)).decode("latin1")
    found = HEADER.fullmatch(text)
    if size > MOST_HEADER or not found:
        text = shown(text.strip(), 80)
        raise InputError(f"should begin with a header of plain numbers, found {text}: write it again")
    dtype, shape = np.dtype(found[1]), tuple(map(int, re.findall(r"\d+", found[3])))
    if dtype.hasobject or not dtype.itemsize:
        raise InputError("holds objects, not numbers: write it again as numbers")
    start, length = len(MAGIC) + 2 + width + size, math.prod(shape) * dtype.itemsize
    if start + length != info.file_size:
        raise InputError(f"should have the {length} bytes of its shape, found {info.file_size - start}: write it again")
    return Entry(info, shape, dtype, "F" if found[2] == "True" else "C", start, length)


def _unpacked(archive, entry):
    """Read an array; zipfile holds its checksum against it at the end."""
    numbers = np.empty(entry.bytes, np.uint8)
    with archive.open(entry.info) as member:
        member.read(entry.start)
        for start in range(0, entry.bytes, PIECE):
            part = numbers[start : start + PIECE]
            if member.readinto(part) != len(part):
                raise EOFError(f"{entry.info.filename} ends too soon")
    return numbers.view(entry.dtype).reshape(entry.shape, order=entry.order)
