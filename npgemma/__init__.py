"""PaliGemma in NumPy, to be read. Start with ``axes.py`` and ``ops.py``; the README has the whole path."""

import npgemma.machinery.starting  # noqa: F401, first of all

# isort: split
from npgemma.errors import InputError
from npgemma.machinery import renamed
from npgemma.machinery.generation import Generation
from npgemma.machinery.loading import embedded_checkpoint, example_image, load
from npgemma.machinery.model import Model
from npgemma.machinery.sampling import Sampling
from npgemma.probe.recording import record

__version__ = "0.1.0"

renamed.install("npgemma")

__all__ = [
    "Generation",
    "InputError",
    "Model",
    "Sampling",
    "embedded_checkpoint",
    "example_image",
    "load",
    "record",
]
