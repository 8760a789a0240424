"""Arrays that another program has written: a .safetensors or .npz file, or a folder of .npy files."""

import os
import pathlib

import numpy as np
import safetensors

from conversion.memory import available_memory
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.npz import MOST_BYTES, read_npz
from npgemma.files.reading import parse_json, reading
from npgemma.probe.manifest import SHAPE

# In a folder; and how much larger than its file an npz file may be, of more than `MOST_BYTES`.
MOST_FOLDERS, LARGER = 20_000, 20
AGAIN = "write it again"


def read_arrays(path, only=None):
    """Read named arrays.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.safetensors`` or ``.npz`` file, or a folder of ``.npy`` files, whose paths in it are the names.
    only : list of str, optional
        The arrays that are needed; others are passed over.

    Returns
    -------
    dict of str to array
        As `checked` returns them; bfloat16 as float32.

    Raises
    ------
    InputError
        If the file is missing, damaged, too large or of another kind, holds what are no numbers, or lacks what is
        needed.
    """
    path = pathlib.Path(path)
    if os.path.isdir(path):
        arrays = _folder(path, only)
    elif not os.path.exists(path):
        raise InputError(f"cannot read '{path}': there is no such file")
    elif path.suffix == ".safetensors":
        arrays = _safetensors(path, only)
    elif path.suffix == ".npz":
        most = min(available_memory() or MOST_BYTES, max(MOST_BYTES, LARGER * os.path.getsize(path)))
        arrays = read_npz(path, "a complete .npz file of numbers", AGAIN, only=only, most_bytes=most)
    else:
        raise InputError(f"cannot read '{path}': expected .safetensors, .npz or a folder of .npy files")
    missing = [name for name in only or [] if name not in arrays]
    if missing:
        raise InputError(f"'{path}' has no array {', '.join(missing)}")
    return checked(arrays, f"'{path}'")


def checked(arrays: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Return arrays of a port in this machine's byte order, numbers wider than float64 as float64; InputError if one
    holds other things than numbers or truth values.
    """
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            found = shown(getattr(array, "dtype", type(array).__name__), 80)
            raise InputError(
                f"array {shown(name, 80)} of {source} should hold numbers or truth values, found {found}: write it as "
                "float32, or leave it out"
            )
    dtypes = (np.float64 if array.itemsize > 8 else array.dtype.newbyteorder("=") for array in arrays.values())
    return {name: array.astype(dtype, copy=False) for (name, array), dtype in zip(arrays.items(), dtypes)}


def read_metadata(path):
    """Return the metadata of a safetensors file, as a dict of str to str; of any other file, none."""
    if pathlib.Path(path).suffix != ".safetensors" or os.path.isdir(path):
        return {}
    with (
        reading(path, "a complete safetensors file", AGAIN),
        safetensors.safe_open(path, framework="numpy") as file,
    ):
        return file.metadata() or {}


def read_manifest(path, shape=SHAPE):
    """Return the manifest in a trace (`npgemma.probe.manifest`), or None where there is none; InputError if it has not
    this shape (`npgemma.files.shapes.check`).
    """
    text = read_metadata(path).get("manifest")
    return None if text is None else parse_json(text, shape, f"the manifest in '{path}'", AGAIN)


def _safetensors(path, only):
    from conversion.safetensors_file import read

    tensors = [tensor for tensor in read(path, most=10**6) if only is None or tensor.name in only]
    _check_memory(path, sum(tensor.bytes * (1 + (tensor.dtype == "BF16")) for tensor in tensors))
    return {tensor.name: tensor.wide(np.array(tensor.array)) for tensor in tensors}


def _folder(path, only):
    files = {}
    for number, (place, _, names) in enumerate(os.walk(path)):
        found = (pathlib.Path(place, name) for name in names if name.endswith(".npy"))
        files |= {file.relative_to(path).with_suffix("").as_posix(): file for file in found}
        if number > MOST_FOLDERS:
            raise InputError(f"'{path}' holds more than {MOST_FOLDERS} folders: name one of .npy files alone")
    files = {name: file for name, file in sorted(files.items()) if only is None or name in only}
    _check_memory(path, sum(os.path.getsize(file) for file in files.values() if os.path.isfile(file)))
    arrays = {}
    for name, file in files.items():
        with reading(file, "a complete .npy file of numbers", AGAIN), open(file, "rb") as stream:
            arrays[name] = np.lib.format.read_array(stream)
    return arrays


def _check_memory(path, needed):
    free = available_memory()
    if free is not None and needed > free:
        raise InputError(
            f"the arrays in '{path}' take {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free here: write fewer"
        )
