"""Known mistakes of ports, injected on purpose: ``with inject("rope-interleaved"): model.generate(...)``.

Each has an id, what it is, who made it, and the place where it shows first. Functions are exchanged for wrong ones
while a mistake is injected; nothing of it stands in the forward pass itself.
"""

import types
from contextlib import AbstractContextManager

from npgemma.porting.mistakes import (
    decoder,
    gemma2_only,
    joining,
    output,
    preprocessing,
    sequence,
    vision,
    weight_layout,
)
from npgemma.porting.mistakes.injection import Mistake
from npgemma.probe.exchange import exchanged

__all__ = ["MISTAKES", "Mistake", "inject"]

# By id, in the order of the data flow. The ids are fixed: other programs use them.
_PARTS = (preprocessing, vision, joining, decoder, sequence, gemma2_only, output, weight_layout)
MISTAKES = types.MappingProxyType({mistake.id: mistake for part in _PARTS for mistake in part.MISTAKES})


def inject(id: str, package: str = "npgemma", variant: int = 0) -> AbstractContextManager[None]:
    """Inject a variant of a mistake of `MISTAKES` into all that this thread runs on a backend, ``npgemma`` or
    ``torch_ref``, inside a ``with`` block.
    """
    return exchanged(MISTAKES[id].variants[variant], package)
