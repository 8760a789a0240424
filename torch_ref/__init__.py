"""The PyTorch twin of ``npgemma``, for CPU and CUDA: the same functions under the same names.

``diff npgemma/gemma.py torch_ref/gemma.py`` is short, and is the lesson. Sizes, the declaration of the weights,
pictures, text and tracing are the port's own.
"""

from torch_ref.model import Model, load

__all__ = ["Model", "load"]
