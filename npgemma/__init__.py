"""PaliGemma in NumPy, to be read. Start with ``axes.py`` and ``ops.py``; the README has the whole path."""

from npgemma.errors import InputError
from npgemma.model import Generation, Model, embedded_checkpoint, example_picture, load
from npgemma.trace import record

__all__ = ["Generation", "InputError", "Model", "embedded_checkpoint", "example_picture", "load", "record"]
