"""From a checkpoint's folder to a loaded model of the NumPy backend."""

import functools
import importlib.util
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from npgemma.errors import InputError
from npgemma.machinery.backend import numpy_backend
from npgemma.machinery.model import Model


def embedded_checkpoint() -> pathlib.Path:
    """Return the folder of the embedded checkpoint, the small PaliGemma that comes with the project."""
    return pathlib.Path(__file__).resolve().parent.parent.parent / "tiny"


def example_image() -> pathlib.Path:
    """Return the path of the image that comes with the project."""
    return embedded_checkpoint() / "example.png"


def check_neighbour(name: str) -> None:
    """Refuse to go on, before it is run, with a file of the user's that hides a package beside this one."""
    ours, spec = pathlib.Path(__file__).resolve().parents[2] / name, importlib.util.find_spec(name)
    found = spec and (spec.origin or next(iter(spec.submodule_search_locations or []), None))
    if not found:
        raise InputError(f"npgemma's package {name} is missing from '{ours.parent}': install npgemma again")
    if pathlib.Path(found).resolve().parent != ours:
        raise InputError(f"'{found}' hides npgemma's package {name}: rename it, or start Python elsewhere")


def opened_by(load: Callable[..., Model], given: dict[str, Any], model: Model) -> Model:
    """Note on a model how it was loaded, with paths that hold in any folder: as this it is pickled."""
    del given["progress"]
    for name in ("path", "base", "config", "tokenizer"):
        if isinstance(given[name], (str, os.PathLike)) and os.path.exists(given[name]):
            given[name] = os.path.abspath(given[name])
    object.__setattr__(model, "opening", functools.partial(load, **given))
    return model


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    static: bool = False,
    base: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    resize: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Load a checkpoint folder for the NumPy backend.

    Parameters
    ----------
    path : str or os.PathLike, optional
        A folder in the layout of Hugging Face's hub, or the hub's id of one that its cache holds, or a LoRA
        adapter; by default the embedded checkpoint.
    dtype : str
        ``float32``; ``float64`` for proofs; ``bfloat16`` holds the matrices so, in half the memory, and widens them
        to float32 whenever they are used (NumPy cannot calculate in bfloat16); ``int8`` holds them in a quarter, as
        whole numbers with a factor for each row (`npgemma.fast.int8`), which costs some accuracy.
    device, static : str, bool
        Options of `torch_ref.load`; NumPy has ``cpu`` and False only.
    base : str or os.PathLike, optional
        The checkpoint that a LoRA adapter was trained on, where ``path`` is an adapter's folder; by default the one
        that lies beside it.
    config, tokenizer : str or os.PathLike, optional
        For big_vision's ``.npz``, which carries neither: a hub ``config.json`` (published sizes are recognised without
        it) and a tokenizer file.
    resize : str, optional
        Filter that resizes images, ``bicubic`` or ``bilinear``; by default the folder's own, mostly bicubic.
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes while weights are read.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        If the folder is not a PaliGemma checkpoint, is damaged, or its weights do not fit into memory.
    """
    given = dict(locals())
    check_neighbour("conversion")
    import conversion  # the one place where the model knows of checkpoints

    backend = numpy_backend(dtype, device, static)
    source = conversion.Source.of(embedded_checkpoint() if path is None else path, base, config, tokenizer)
    start = time.perf_counter()
    parts = conversion.read_checkpoint(source, dtype, progress, resize)
    params, sizes, mask_params, loaded_tokenizer, preprocessing = parts
    seconds = time.perf_counter() - start
    model = Model(params, sizes, backend, source.path, mask_params, seconds, loaded_tokenizer, preprocessing, source)
    return opened_by(load, given, model)
