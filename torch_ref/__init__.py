"""The PyTorch twin of ``npgemma``, for CPU and CUDA: the same functions under the same names.

``diff npgemma/gemma.py torch_ref/gemma.py`` is short, and is the lesson. Sizes, the declaration of the weights,
images, text and tracing are the port's own.
"""

import os
import time
from collections.abc import Callable

import npgemma
from npgemma.machinery.model import Model
from torch_ref.backend import memory_errors, to_torch, torch_backend

__all__ = ["load"]


def load(
    path: str | os.PathLike | None = None,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    static: bool = False,
    base: str | os.PathLike | None = None,
    config: str | os.PathLike | None = None,
    tokenizer: str | os.PathLike | None = None,
    resize: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Load a checkpoint folder for the torch backend.

    Parameters
    ----------
    path : str or os.PathLike, optional
        A folder in the layout of Hugging Face's hub, or the hub's id of one that its cache holds, or a LoRA
        adapter; by default the embedded checkpoint.
    dtype, device, static
        As for `torch_ref.backend.torch_backend`.
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
    npgemma.Model

    Raises
    ------
    InputError
        As `npgemma.load`; and if there is no such device.
    """
    import conversion

    backend = torch_backend(dtype, device, static)
    source = conversion.Source.of(npgemma.embedded_checkpoint() if path is None else path, base, config, tokenizer)
    start = time.perf_counter()
    parts = conversion.read_checkpoint(source, dtype, progress, resize)
    params, config, mask_params, words, preprocessing = parts
    with memory_errors():
        params = to_torch(params, dtype, device)
    return Model(params, config, backend, source.path, mask_params, time.perf_counter() - start, words, preprocessing)
