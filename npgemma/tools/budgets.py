"""How far one operation of a right program may be from the reference, calculated from the program's own inputs.

Rounding does not add up here: every operation is judged by itself, so these limits do not grow with depth.
"""

from npgemma.tools.compare import BOUNDS

# Which kind of operation each is, by its name in the manifest; the roughest kind of a formula counts.
KINDS = {
    "softmax": "attention weights",
    "cos": "rotation",
    "gelu": "activation",
    "soft_cap": "activation",
    "einsum": "product",
    "rms_norm": "norm",
    "layer_norm": "norm",
}
SUM = "sum"
# The largest own error of a right program, relative L2: Hugging Face's and the twin's on the embedded checkpoint. The
# limit is `MARGIN` times as much. Attention weights round most, for their scores are large numbers in an exponential.
_COLUMNS = ("attention weights", "rotation", "activation", "product", "norm", SUM)
LARGEST = {
    "float64": dict(zip(_COLUMNS, (3e-15, 1e-15, 1e-15, 1e-15, 1e-15, 3e-16))),
    "float32": dict(zip(_COLUMNS, (1e-6, 1e-6, 3e-7, 3e-7, 1e-7, 1e-7))),
    "float16": dict(zip(_COLUMNS, (5e-3, 5e-4, 5e-4, 4e-4, 3e-4, 3e-4))),
    "bfloat16": dict(zip(_COLUMNS, (4e-2, 3e-3, 3.2e-3, 3e-3, 2.2e-3, 2e-3))),
}
MARGIN = 3


def kind_of(entry):
    """Return the kind of operation of an array.

    Parameters
    ----------
    entry : npgemma.tools.manifest.Entry

    Returns
    -------
    str
    """
    return next((kind for op, kind in KINDS.items() if op in entry.ops), SUM)


def limits(entries, given, dtype):
    """Return for each array how far it may be from what the reference makes of a program's own arrays.

    Where the program does not give an array, the operations before it are judged together with those behind it.

    Parameters
    ----------
    entries : dict of str to npgemma.tools.manifest.Entry
        Of the reference's run.
    given : container of str
        The arrays that the program gives.
    dtype : str
        The program's.

    Returns
    -------
    dict of str to float
    """
    found, carried, shown = {}, {}, set()
    for name, entry in entries.items():
        first = entry.same_as or name
        if not entry.same_as:
            # What the operations since the program's last arrays may have brought together.
            own = MARGIN * LARGEST[dtype][kind_of(entry)]
            together = own + sum(carried[source] for source in entry.inputs if source not in shown)
            # A sum over all paths: through many hidden layers it would allow more than a whole pass may be off.
            carried[name] = max(own, min(together, BOUNDS.get(dtype, together)))
        found[name] = MARGIN * LARGEST[dtype][SUM] if first in shown else carried[first]
        if name in given:
            shown.add(first)
    return found
