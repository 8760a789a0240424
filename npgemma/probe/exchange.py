"""Exchange functions of the forward pass, and of what stands around it, for others."""

import contextlib
import importlib
from collections.abc import Callable, Mapping

from npgemma.probe.following import in_force

# These modules serve both backends; all others exist once for each.
SHARED = {
    "image": "npgemma.image",
    "tokenizer": "npgemma.tokenizer",
    "model": "npgemma.machinery.model",
    "answer": "npgemma.answer",
}

# What is exchanged, within a backend's package, such as "gemma2.attend", and how what replaces it is made:
# ``wrong(module, right)`` returns it, made of the right function and of others of its module.
Changes = Mapping[str, Callable]


@contextlib.contextmanager
def exchanged(changes, package="npgemma"):
    """Exchange functions in everything that this context runs inside a ``with`` block; other threads see nothing of it.

    Parameters
    ----------
    changes : Changes
    package : str
        The backend: ``npgemma`` or ``torch_ref``.
    """
    exchanges = []
    for path, wrong in changes.items():
        name, *parts = path.split(".")
        owner = importlib.import_module(SHARED.get(name, f"{package}.{name}"))
        for part in parts[:-1]:
            owner = getattr(owner, part)
        exchanges.append((owner, parts[-1], wrong))
    with in_force(exchanges=exchanges):
        yield
