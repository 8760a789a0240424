"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
import stat

from npgemma.errors import InputError
from npgemma.files.reading import reason


@contextlib.contextmanager
def replacing(path):
    """Yield a binary file that takes its name only if all goes well; otherwise nothing is left of it.

    A file of this name is replaced, owner and permissions kept; where it is a link, what it points to. InputError if
    the file cannot be written.
    """
    before = check_writable(path)
    path = pathlib.Path(os.path.realpath(path))
    # Short, so that a name as long as file systems allow can be written too.
    part = path.with_name(f"{path.name[:30]}.{os.getpid()}.{hash(path.name):x}.part")
    try:
        with open(part, "wb") as file:
            if before is not None:
                with contextlib.suppress(OSError, AttributeError):  # not allowed, or unknown to the system
                    os.chown(part, before.st_uid, before.st_gid)
                os.chmod(part, stat.S_IMODE(before.st_mode))
            yield file
        os.replace(part, path)
    except OSError as problem:
        raise InputError(f"cannot write '{path}': {reason(problem)}") from None
    finally:
        with contextlib.suppress(OSError):  # it was never made
            part.unlink()


def check_writable(path):
    """Refuse early a file that cannot be written; return what the system says of one that is there, or None."""
    try:
        before = os.stat(path or ".")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:  # a name with a zero byte is a ValueError
        raise InputError(f"cannot write '{path}': {reason(problem)}") from None
    if not stat.S_ISREG(before.st_mode):
        found = "a folder" if stat.S_ISDIR(before.st_mode) else "a pipe or a device"
        raise InputError(f"cannot write '{path}': it is {found}, name a file")
    if not os.access(path, os.W_OK):
        raise InputError(f"cannot write '{path}': it is read-only, name another file")
    return before
