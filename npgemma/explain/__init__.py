"""The tour: one inference, laid open on one HTML page that needs nothing but a browser.

`npgemma.record` gives the data; what the page shows of them is decided in ``web/``, which holds its HTML, CSS,
JavaScript and texts. Nothing here is part of the forward pass.
"""

from npgemma.explain.page import build

__all__ = ["build"]
