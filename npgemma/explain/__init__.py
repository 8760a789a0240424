"""One inference, laid open on one HTML page that needs nothing but a browser; and what ``generate`` shows of an answer.

`npgemma.record` gives the data; nothing here is part of the forward pass. ``inference.py`` answers a prompt and keeps
the recording, ``page.py`` collects the parts, most files make one part of the page each, and ``packing.py`` and
``bundle.py`` put all of it into one file. What is shown, and in which words, is decided in ``web/``: HTML, CSS,
JavaScript and texts. ``passes.py`` serves the options ``--top-logits`` and ``--show-attention``.
"""

from npgemma.explain.page import build

__all__ = ["build"]
