"""A loaded model on the PyTorch backend: the port's `npgemma.Model` with torch under it."""

import contextlib
import pathlib
import time
import warnings

import numpy as np
import torch

import conversion
from npgemma import model as port
from npgemma.errors import InputError
from npgemma.params import map_leaves
from torch_ref import generate, paligemma
from torch_ref import static as static_shapes

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def load(path=None, dtype="float32", device="cpu", progress=None, static=False):
    """Load a checkpoint folder for the PyTorch backend.

    Parameters
    ----------
    path : str or os.PathLike, optional
        A folder in the hub's layout; by default the embedded checkpoint.
    dtype : str
        ``float32``, ``float64`` or ``bfloat16``: of weights and activations.
    device : str
        ``cpu`` or ``cuda``. On CUDA float32 means float32: TF32 is switched off for the process.
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes while weights are read.
    static : bool
        Decode with ``static.py``: on CUDA compiled, which takes a minute once, and as a captured graph. For speed; its
        gain was not measured yet.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        As `npgemma.load`; and if there is no such device.
    """
    folder = pathlib.Path(port.embedded_checkpoint() if path is None else path)
    check_device(device)
    start = time.perf_counter()
    params, config = conversion.read_folder(folder, dtype, progress)
    with memory_errors():
        params = to_torch(params, dtype, device)
    return Model(params, config, folder, dtype, time.perf_counter() - start, device, static)


@contextlib.contextmanager
def memory_errors():
    """Turn torch's errors for too little memory into Python's own."""
    try:
        yield
    except torch.OutOfMemoryError as problem:
        raise MemoryError(str(problem)) from None
    except RuntimeError as problem:
        # On the CPU torch has no error of its own for it.
        if "allocate memory" not in str(problem):
            raise
        raise MemoryError(str(problem)) from None


def check_device(device):
    """Refuse a device that is not there, and make float32 exact on CUDA."""
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InputError(f"torch finds no CUDA device (torch {torch.__version__}): use --device cpu")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    elif device != "cpu":
        raise InputError(f"device should be cpu or cuda, found '{device}'")


def to_torch(params, dtype="float32", device="cpu"):
    """Return a tree of NumPy weights as torch's; on the CPU they share the memory.

    Parameters
    ----------
    params : Params
        uint16 stands for bfloat16 bits.
    dtype : str
    device : str

    Returns
    -------
    Params
    """

    def convert(array):
        """Return one array as torch's."""
        with warnings.catch_warnings():
            # A mapped file cannot be written to, and torch warns that it will not check; nothing here writes.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            x = torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)
        x = x.view(torch.bfloat16) if array.dtype == np.uint16 else x
        return x.to(device=device, dtype=DTYPES[dtype])

    return map_leaves(convert, params)


class Model(port.Model):
    """PaliGemma with its weights, on the PyTorch backend; the methods are those of `npgemma.Model`.

    Parameters
    ----------
    params : Params
        Of tensors.
    config : Config
    folder : pathlib.Path
    dtype : str
    load_seconds : float
    device : str
    static : bool
        As for `load`.
    """

    paligemma, sampling = paligemma, generate

    def __init__(self, params, config, folder, dtype="float32", load_seconds=0.0, device="cpu", static=False):
        super().__init__(params, config, folder, dtype, load_seconds)
        self.device = device
        if static:
            self.paligemma = self.sampling = static_shapes

    def to_backend(self, x):
        """Hand a NumPy array to the backend."""
        return torch.from_numpy(np.array(x)).to(self.device)

    def to_activation(self, x):
        """Hand pixels to the backend in the dtype it calculates in."""
        return self.to_backend(x).to(DTYPES[self.dtype])

    def clock(self):
        """Return the time in seconds, after all work that was begun has ended."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def peak_bytes(self):
        """Return the most memory that this process has held, on a CUDA device that of the device."""
        return super().peak_bytes() if self.device == "cpu" else torch.cuda.max_memory_allocated()

    @torch.inference_mode()
    def generate_batch(self, *arguments, **settings):
        """See `npgemma.Model.generate_batch`."""
        with memory_errors():
            return super().generate_batch(*arguments, **settings)

    @torch.inference_mode()
    def logits(self, *arguments, **settings):
        """See `npgemma.Model.logits`."""
        with memory_errors():
            return super().logits(*arguments, **settings)
