"""Known mistakes of ports, made on purpose: ``with made("rope-interleaved"): model.generate(...)``.

Each has an id, what it is, who made it, and the place where it shows first. Functions are exchanged for wrong ones
while a mistake is made; nothing of it stands in the forward pass itself.
"""

import types

from npgemma.porting.mistakes import decoder, gemma2_only, output, preprocessing, vision, weight_layout
from npgemma.porting.mistakes.injection import Mistake
from npgemma.probe.exchange import exchanged

__all__ = ["MISTAKES", "Mistake", "made"]

# By id, in the order of the data flow. The ids are fixed: other programs use them.
_PARTS = (preprocessing, vision, decoder, gemma2_only, output, weight_layout)
MISTAKES = types.MappingProxyType({mistake.id: mistake for part in _PARTS for mistake in part.MISTAKES})


def made(id, package="npgemma", way=0):
    """Make a mistake in everything that runs inside a ``with`` block, in all threads.

    Parameters
    ----------
    id : str
        A key of `MISTAKES`.
    package : str
        The backend: ``npgemma`` or ``torch_ref``.
    way : int
        Which of the mistake's ways.

    Returns
    -------
    context manager
    """
    return exchanged(MISTAKES[id].ways[way], package)
