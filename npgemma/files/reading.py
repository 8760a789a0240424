"""Files of a checkpoint that are read whole; their errors are one sentence."""

import json
import os
import pathlib
from typing import Any

from npgemma.errors import InputError

# What Git LFS puts in a file's place until the file itself is fetched.
POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path):
    """Refuse a pointer of Git LFS that stands in a file's place (InputError)."""
    with open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise InputError(f"'{path}' is only a pointer of Git LFS, not the file: run 'git lfs pull' in its folder")


def read_json(path: pathlib.Path) -> Any:
    """Return what a JSON file holds; InputError if it is missing, a pointer of Git LFS, or not JSON."""
    if not os.path.isfile(path):
        raise InputError(f"'{path}' is missing: pass a checkpoint folder as the hub has it")
    try:
        refuse_pointer(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(f"'{path}' is not valid JSON ({problem}): download it again") from None
