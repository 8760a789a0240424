"""Exchange functions of the forward pass, and of what stands around it, for others."""

import contextlib
import importlib
from collections.abc import Callable, Mapping
from unittest import mock

# These modules serve both backends; all others exist once for each.
SHARED = {
    "image": "npgemma.image",
    "tokenizer": "npgemma.tokenizer",
    "model": "npgemma.machinery.model",
    "answer": "npgemma.answer",
}

# What is exchanged, within a backend's package, such as "gemma2.attend", and how the wrong thing is made:
# ``wrong(module, right)`` returns it, made of the right one and of others of its module.
Changes = Mapping[str, Callable]


@contextlib.contextmanager
def changed(changes, package="npgemma"):
    """Exchange functions in everything that runs inside a ``with`` block, in all threads.

    Parameters
    ----------
    changes : Changes
    package : str
        The backend: ``npgemma`` or ``torch_ref``.
    """
    with contextlib.ExitStack() as stack:
        for path, wrong in changes.items():
            name, *parts = path.split(".")
            module = importlib.import_module(SHARED.get(name, f"{package}.{name}"))
            owner = module
            for part in parts[:-1]:
                owner = getattr(owner, part)
            # The right function sees the module as it is now, whatever is exchanged in it.
            right = getattr(owner, parts[-1])
            stack.enter_context(mock.patch.object(owner, parts[-1], wrong(module, right)))
        yield
