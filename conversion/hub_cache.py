"""Hub ids: a checkpoint named as on Hugging Face's hub, found in that library's cache on this machine."""

import os
import pathlib
import re

from npgemma.errors import InputError
from npgemma.files.reading import reading

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def locate(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return the folder of a checkpoint that is given by a path, or where there is no such path by a hub id.

    ``google/paligemma2-3b-mix-224`` stands for that checkpoint in the cache; InputError if the cache does not hold it.
    """
    found = pathlib.Path(path)
    if os.path.exists(found) or not HUB_ID.fullmatch(os.fspath(path)):
        return found
    name = os.fspath(path)
    snapshot = cache_of(name)
    if snapshot is None:
        raise InputError(
            f"there is no folder '{name}', and Hugging Face's cache at '{cache()}' does not hold it: accept the "
            f"licence at https://huggingface.co/{name}, then run 'hf auth login' and 'hf download {name}'"
        )
    return snapshot


def cache():
    """Return the folder of Hugging Face's cache, by the variables that its library reads."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return pathlib.Path(os.path.expanduser(os.environ[name]))
    home = os.environ.get("HF_HOME")
    if not home:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return pathlib.Path(os.path.expanduser(home)) / "hub"


def cache_of(name):
    """Return the folder for a hub id: the snapshot of the branch main, or else the newest; None without any."""
    if not HUB_ID.fullmatch(name):
        return None
    folder = cache() / f"models--{name.replace('/', '--')}"
    main = folder / "refs" / "main"
    if os.path.exists(main):
        with reading(main, "the name of a snapshot", "run 'hf download' again"), open(main, encoding="ascii") as file:
            snapshot = folder / "snapshots" / file.read(100).strip()
        if os.path.isdir(snapshot) and snapshot.parent == folder / "snapshots":
            return snapshot
    found = sorted((folder / "snapshots").glob("*/config.json"), key=os.path.getmtime)
    return found[-1].parent if found else None
