"""The PyTorch twin of ``npgemma``, for CPU and CUDA: the same functions under the same names.

A file explains only what differs from the reference's file of the same name; it is a lesson how little that is:
``diff npgemma/gemma.py torch_ref/gemma.py | grep '^>'``. Sizes, the declaration of the weights, images, text and
tracing are the reference's own.
"""

import os
import time
from collections.abc import Callable

import npgemma
from npgemma.machinery import renamed
from npgemma.machinery.loading import check_neighbour, opened_by
from npgemma.machinery.model import Model
from npgemma.probe.following import catch_up
from torch_ref.backend import memory_errors, to_torch, torch_backend

__all__ = ["load"]

renamed.install(__name__)
# A recording may have begun before this package was imported.
catch_up()


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
    """Load a checkpoint folder for the torch backend, as `npgemma.load` does for NumPy.

    Parameters
    ----------
    dtype, device, static
        As for `torch_ref.backend.torch_backend`.
    path, base, config, tokenizer, resize, progress
        As for `npgemma.load`.

    Returns
    -------
    npgemma.Model

    Raises
    ------
    InputError
        As `npgemma.load`; and if there is no such device.
    """
    given = dict(locals())
    check_neighbour("conversion")
    import conversion

    backend = torch_backend(dtype, device, static)
    source = conversion.Source.of(npgemma.embedded_checkpoint() if path is None else path, base, config, tokenizer)
    start = time.perf_counter()
    parts = conversion.read_checkpoint(source, dtype, progress, resize)
    params, sizes, mask_params, loaded_tokenizer, preprocessing = parts
    with memory_errors():
        params = to_torch(params, dtype, device)
    seconds = time.perf_counter() - start
    model = Model(params, sizes, backend, source.path, mask_params, seconds, loaded_tokenizer, preprocessing, source)
    return opened_by(load, given, model)
