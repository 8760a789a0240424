"""How far one operation of a right program may be from the reference, calculated from the program's own inputs.

Rounding does not add up here: every operation is judged by itself, so these limits do not grow with depth.
"""

# The largest relative L2 error of any named array of a pass, between the two backends. Rounding of a right program
# grows with depth; a mistake is far above (tests/porting/test_mistakes.py makes each). Real weights have larger
# activations than random ones, so there is some room.
BOUNDS = {
    # At three layers the largest is about 1e-14, varying with processor and BLAS (last run: reports/parity.json).
    "float64": 1e-13,
    # About 1.6e-6 at three layers; 2.8e-6 at the published size of 27 and 18 layers.
    "float32": 1e-5,
    # The port calculates in float32 on the twin's matrices: about 3e-2.
    "bfloat16": 4e-2,
    # The port on rounded weights against the twin on the original ones: what int8 costs, not a measure of rightness.
    # About 5e-2 of the embedded model.
    "int8": 1e-1,
}
# On CUDA other kernels sum in other orders. Not measured yet: no device was at hand.
DEVICE_FACTOR = {"cpu": 1, "cuda": 4}

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
# The largest own error of a right program, relative L2, rounded: of Hugging Face, the twin and NumPy on the embedded
# checkpoint, which reports/budgets.py measures. The limit is `MARGIN` times as much. Attention weights round most, for
# their scores are large numbers in an exponential.
_COLUMNS = ("attention weights", "rotation", "activation", "product", "norm", SUM)
LARGEST = {
    "float64": dict(zip(_COLUMNS, (3e-15, 1e-15, 1e-15, 1e-15, 1e-15, 3e-16))),
    "float32": dict(zip(_COLUMNS, (1e-6, 1e-6, 3e-7, 3e-7, 1e-7, 1e-7))),
    "float16": dict(zip(_COLUMNS, (5e-3, 5e-4, 5e-4, 4e-4, 3e-4, 3e-4))),
    "bfloat16": dict(zip(_COLUMNS, (4e-2, 3e-3, 3.2e-3, 3e-3, 2.2e-3, 2e-3))),
}
MARGIN = 3
# Programs that calculate some operations in float32 whatever their dtype, as Hugging Face's do, do so in these kinds.
IN_FLOAT32 = ("attention weights", "rotation", "norm")
# Half a unit in the last place of a float32, in which angles are calculated: an angle is a position or a part of one,
# so that rounding turns queries and keys by up to so much for each position.
ANGLE = 2**-24


def kind_of(entry):
    """Return the kind of operation of an array, from its entry in the manifest."""
    return next((kind for op, kind in KINDS.items() if op in entry.ops), SUM)


def budget_of(entry, equal=False):
    """Return, by the dtype of the program, how far an array may be from what the reference makes of its inputs;
    ``equal`` says that it holds whole numbers or truth values.
    """
    kind = SUM if entry.same_as else kind_of(entry)
    return {dtype: 0.0 if equal else float(f"{MARGIN * largest[kind]:.6g}") for dtype, largest in LARGEST.items()}


def limits(entries, given, dtype, in_float32=(), positions=0):
    """Return for each array how far it may be from what the reference makes of the arrays that a program of some dtype
    has ``given``.

    Where the program does not give an array, the operation that makes it is judged together with those downstream. The
    kinds of operations ``in_float32`` are calculated in float32 whatever the dtype. In the last of all ``positions``,
    rounding of angles rotates queries and keys most.
    """
    largest = LARGEST[dtype] | {kind: LARGEST["float32"][kind] for kind in in_float32}
    angles = 0.0 if dtype == "float64" and "rotation" not in in_float32 else ANGLE * positions
    found, carried, shown = {}, {}, set()
    for name, entry in entries.items():
        first = entry.same_as or name
        if not entry.same_as:
            # What the operations since the program's last arrays may have brought together.
            kind = kind_of(entry)
            own = MARGIN * largest[kind] + (angles if kind == "rotation" else 0.0)
            together = own + sum(carried[source] for source in entry.inputs if source not in shown)
            # A sum over all paths: through many hidden layers it would allow more than a whole pass may be off.
            carried[name] = max(own, min(together, BOUNDS.get("float32" if in_float32 else dtype, together)))
        found[name] = MARGIN * largest[SUM] if first in shown else carried[first]
        if name in given:
            shown.add(first)
    return found
