"""Arrays that another program has written: a .safetensors or .npz file, or a folder of .npy files."""

import json
import pathlib
import zipfile

import numpy as np
import safetensors

from npgemma.errors import InputError


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
        bfloat16 as float32.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another kind, holds objects instead of numbers, or lacks what is needed.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        arrays = _folder(path, only)
    elif not path.exists():
        raise InputError(f"cannot read '{path}': there is no such file")
    elif path.suffix == ".safetensors":
        arrays = _safetensors(path, only)
    elif path.suffix == ".npz":
        arrays = _npz(path, only)
    else:
        raise InputError(f"cannot read '{path}': expected .safetensors, .npz or a folder of .npy files")
    missing = [name for name in only or [] if name not in arrays]
    if missing:
        raise InputError(f"'{path}' has no array {', '.join(missing)}")
    return arrays


def read_metadata(path):
    """Return the metadata of a safetensors file, as a dict of str to str; of any other file, none."""
    path = pathlib.Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as problem:
        raise InputError(f"'{path}' is not a complete safetensors file: {problem}") from None


def read_manifest(path):
    """Return the manifest in a trace (`npgemma.probe.manifest`), or None where there is none."""
    try:
        return json.loads(read_metadata(path).get("manifest", "null"))
    except ValueError:
        raise InputError(f"the manifest in '{path}' is damaged: write the trace again") from None


def _safetensors(path, only):
    from conversion.safetensors_file import read

    tensors = (tensor for tensor in read(path) if only is None or tensor.name in only)
    return {tensor.name: tensor.wide(np.array(tensor.array)) for tensor in tensors}


def _npz(path, only):
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files if only is None or name in only}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise InputError(f"'{path}' is not a complete .npz file of numbers: {problem}") from None


def _folder(path, only):
    arrays = {}
    for file in sorted(path.rglob("*.npy")):
        name = file.relative_to(path).with_suffix("").as_posix()
        if only is None or name in only:
            try:
                arrays[name] = np.load(file)
            except (OSError, ValueError, EOFError) as problem:
                raise InputError(f"'{file}' is not a complete .npy file of numbers: {problem}") from None
    return arrays
