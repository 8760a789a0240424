"""The gate through which every file from outside is read: whatever goes wrong in it is one sentence with its name."""

import contextlib
import json
import os
import pathlib
import re
import stat
import warnings
from collections.abc import Iterator
from typing import Any

from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.shapes import check

# What Git LFS puts in a file's place until the file itself is fetched.
POINTER = b"version https://git-lfs.github.com/spec/"
# How JSON writes half of a character, which is no text unless the other half follows.
HALF = re.compile(r"\\u[dD][89a-fA-F]")
# Of a JSON file; read, it may take thirty times as much memory.
MOST_BYTES = 20_000_000


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str] | None, kind: str, advice: str, missing: str | None = None, name: str | None = None
) -> Iterator[None]:
    """Read a file from outside inside a ``with`` block: any exception there becomes one InputError.

    Parameters
    ----------
    path : str or os.PathLike, optional
        A regular file: anything else, such as a named pipe, is refused before it is opened. None if what is read is in
        memory already.
    kind : str
        What the file should be: ``a complete npz file``.
    advice : str
        What to do where it is not: ``download it again``.
    missing : str, optional
        The message where there is no such file.
    name : str, optional
        What messages call it: by default the path in quotation marks.
    """
    try:
        if path is not None:
            _check_regular(path, missing)
        with warnings.catch_warnings():
            # Parsers warn of what they then refuse, or of what does not matter.
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    # Parsers raise whatever a damaged file leads them to.
    except Exception as problem:
        name = name or f"'{path}'"
        raise InputError(f"{name} is not {kind} ({reason(problem)}): {advice}") from None


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file in an InputError of a ``with`` block that does not name it."""
    try:
        yield
    except InputError as problem:
        raise InputError(problem if str(path) in str(problem) else f"{problem} (in '{path}')") from None


def reason(problem: Exception) -> str:
    """Return what an exception says, briefly."""
    if isinstance(problem, RecursionError):
        return "nested too deep"
    if isinstance(problem, MemoryError):
        return "too large for the memory that is free"
    text = (isinstance(problem, OSError) and problem.strerror) or " ".join(str(problem).split())
    return shown(text, 200) or type(problem).__name__


def _check_regular(path, missing):
    """Refuse what is no regular file, or only a pointer of Git LFS to one."""
    if not os.path.exists(path):
        raise InputError(missing or f"there is no file '{path}'")
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        found = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
        raise InputError(f"'{path}' is {found}, not a file: name a file")
    # So are files of the system's that have no size and no end.
    if not about.st_size:
        raise InputError(f"'{path}' is empty: fetch or write it again")
    with open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise InputError(f"'{path}' is only a pointer of Git LFS, not the file: run 'git lfs pull' in its folder")


def read_json(path: str | os.PathLike[str], shape: Any = dict, most: int = MOST_BYTES) -> Any:
    """Return what a JSON file holds, if it has a shape (`npgemma.files.shapes.check`), by default any object.

    InputError if the file is missing, a pointer of Git LFS, larger than ``most``, not JSON, or of another shape.
    """
    missing = f"'{path}' is missing: pass a checkpoint folder as the hub has it"
    with reading(path, "valid JSON", "download it again", missing):
        if os.path.getsize(path) > most:
            raise InputError(f"'{path}' has more than {most // 10**6} MB: download it again")
        return parse_json(pathlib.Path(path).read_text(encoding="utf-8"), shape, f"'{path}'")


def parse_json(text: str, shape: Any, name: str, advice: str = "download it again") -> Any:
    """Return what a JSON text from outside holds, if it has a shape; InputError, which begins with ``name``, if not."""
    try:
        document = json.loads(text)
        if HALF.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{name} is not valid JSON ({reason(problem)}): {advice}") from None
    check(document, shape, name)
    return document
