"""How the run was checked: the same inference on the other backend, array by array."""

from npgemma import record
from npgemma.tools.compare import BOUNDS, Comparison

# Of a run with more bytes, only what its blocks and its head give is compared.
MOST_BYTES = 2**30
LARGE = "*/block.*/out_BTD"


def parity(inference, twin):
    """Compare the run with the same on the other backend.

    Parameters
    ----------
    inference : Inference
    twin : npgemma.Model or None
        The same weights on the other backend; None if there is none here.

    Returns
    -------
    dict or None
        As `npgemma.tools.compare.Comparison.report`.
    """
    if twin is None:
        return None
    only = "*" if inference.recording.bytes <= MOST_BYTES else LARGE
    arguments = (inference.image, inference.prompt)
    with record(only) as expected:
        answer = inference.model.generate(*arguments, **inference.settings)
    comparison = Comparison(expected, BOUNDS[inference.model.backend.dtype])
    with record(only, sink=comparison.sink):
        found = twin.generate(*arguments, **inference.settings)
    return comparison.report(answer.token_ids, found.token_ids) | {"backend": twin.backend.name, "only": only}
