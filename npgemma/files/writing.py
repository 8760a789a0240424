"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib

from npgemma.errors import InputError


@contextlib.contextmanager
def replacing(path):
    """Yield a binary file that takes its name only if all goes well; otherwise nothing is left of it.

    A file of this name is replaced; where it is a link, what it points to. InputError if the file cannot be written.
    """
    path = pathlib.Path(os.path.realpath(path))
    if path.is_dir():
        raise InputError(f"cannot write '{path}': it is a folder")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    except OSError as problem:
        raise InputError(f"cannot write '{path}': {problem.strerror or problem}") from None
    finally:
        part.unlink(missing_ok=True)
