"""How far right programs may be apart: the one home of all bounds, each beside its measurement.

In order: whole passes, one operation against torch's own, one operation of a port recalculated from the port's own
inputs, logits, and what names a mistake. Limits of the recalculated operations do not grow with depth, for every
operation is judged by itself and rounding does not add up.
"""

# The largest relative L2 error of any named array of a pass, between the two backends. Rounding of a right program
# grows with depth; a mistake is far above (tests/porting/test_mistakes.py makes each). Real weights have larger
# activations than random ones, so there is some room.
BOUNDS = {
    # At three layers the largest is about 1e-14, varying with processor and BLAS (last run: reports/parity.json).
    "float64": 1e-13,
    # About 1.6e-6 at three layers; 2.8e-6 at the published size of 27 and 18 layers.
    "float32": 1e-5,
    # Largest of Hugging Face's, of all arrays of two prompts and six tokens each: 3.5e-3.
    "float16": 1e-2,
    # The port calculates in float32 on the twin's matrices: about 3e-2.
    "bfloat16": 4e-2,
    # The port on rounded weights against the twin on the original ones: what int8 costs, not a measure of rightness.
    # About 5e-2 of the embedded model.
    "int8": 1e-1,
}
# On CUDA other kernels sum in other orders. Not measured yet: no device was at hand.
DEVICE_FACTOR = {"cpu": 1, "cuda": 4}
# Two tokens may be exchanged where their logits are this many root mean squares of the measured error apart. Errors of
# this size, if independent, move the distance by sqrt(2) of them; six times as much is one case in 500 million.
TOKEN_MARGIN = 6 * 2**0.5
# The largest of many rounding errors over their root mean square, where the error itself was not measured.
PEAK = 5.0

# One operation or one layer against torch's own primitive, relative L2: about three times the largest error seen, since
# processors and BLAS libraries differ, and far below what any mistake causes.
OPERATION = {
    "float64": 2e-15,  # largest seen 5.1e-16
    "float32": 1e-6,  # largest seen 2.9e-7
}
# The same of the mask decoder, thirteen convolutions deep.
MASKS = {
    "float64": 8e-15,  # largest seen 2.4e-15
    "float32": 4e-6,  # largest seen 1.4e-6
}
# A gradient against torch's autograd, through the whole model and back; the largest seen are 3.9e-14 and 1.3e-5.
GRADIENTS = {"float64": 1.2e-13, "float32": 4e-5}

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
_OWN_ERRORS = {
    #                     float64, float32, float16, bfloat16
    "attention weights": (3e-15, 1e-6, 5e-3, 4e-2),
    "rotation": (1e-15, 1e-6, 5e-4, 3e-3),
    "activation": (1e-15, 3e-7, 5e-4, 3.2e-3),
    "product": (1e-15, 3e-7, 4e-4, 3e-3),
    "norm": (1e-15, 1e-7, 3e-4, 2.2e-3),
    SUM: (3e-16, 1e-7, 3e-4, 2e-3),
}
# By dtype of the program, then by kind of operation.
LARGEST_OWN_ERROR = {
    dtype: {kind: errors[i] for kind, errors in _OWN_ERRORS.items()}
    for i, dtype in enumerate(("float64", "float32", "float16", "bfloat16"))
}
MARGIN = 3
# Programs that calculate some operations in float32 whatever their dtype, as Hugging Face's do, do so in these kinds.
IN_FLOAT32 = ("attention weights", "rotation", "norm")
# Half a unit in the last place of a float32, in which angles are calculated: an angle is a position or a part of one,
# so that rounding turns queries and keys by up to so much for each position.
ANGLE = 2**-24
# Below this, two calculations in float64 are the same one.
SAME = 1e-11
# From here down a port's score counts as masked.
MASKED = -1e4
# Two arrays this close are taken for the same in another layout.
ALIKE = 0.05
# A pixel may be off by one of 255 levels, for resizers round differently; in a JPEG by more, for decoders do so too.
LEVELS, JPEG_LEVELS = 1, 4
# Their mean may not be: a formula that is not the right one moves all pixels alike. Of torch's resizers, in bytes and
# in floating point, 0.012 at most on the images of a set.
DRIFT = 0.1

# How far a right port's logits may be from the reference in float32, relative L2. Largest of Hugging Face's on the
# embedded checkpoint in float32, eight images and four prompts, six rows each: 1.3e-6; median 6.5e-7.
LOGITS_ROUNDING = 5e-6
# How far those of a right port of a narrow dtype may be, as a multiple of how far rounding moves the reference's own
# for the same question: that differs from one question to the next by up to an order of magnitude. Largest of
# Hugging Face's, 18 questions to the embedded checkpoint and 18 to a random PaliGemma 2: 1.58 in bfloat16, 1.80 in
# float16; medians 1.1. Of a single row behind the first eight 3.0 and 3.4: `LOGITS_MARGIN` times as much is allowed.
LOGITS_OWN = 2
# A mistake that leaves no more than this part of a port's distance is named, although another one is beside it.
LOGITS_REST = 0.05
# Of a port that is nearer than this part of it, rounding alone decides what it is nearest to.
LOGITS_LEAST = 0.25
# How much farther than the mistake that is named everything else must be.
LOGITS_MARGIN = 2
# Further rows show nothing that these do not, and every row takes as long as a token.
LOGITS_ROWS = 8

# Of an array's own error a mistake may leave so much and explains it all the same. What a mistake rounds is rounded the
# other way where a port's number lies at the border: `cache-bfloat16` leaves 4.4 % of the embedded checkpoint's logits.
LEFT = 0.05
# A projection names a mistake that is smaller than rounding: this near to 1, and so many standard errors from 0.
NEAR_ONE, SURE = 0.4, 12
# A mistake could be seen if, in a port that had it, |z| would be expected to be as large as this.
VISIBLE = 2 * SURE


def kind_of(entry):
    """Return the kind of operation of an array, from its entry in the manifest."""
    return next((kind for op, kind in KINDS.items() if op in entry.ops), SUM)


def budget_of(entry, equal=False):
    """Return, by the dtype of the program, how far an array may be from what the reference makes of its inputs;
    ``equal`` says that it holds whole numbers or truth values.
    """
    kind = SUM if entry.same_as else kind_of(entry)
    return {
        dtype: 0.0 if equal else float(f"{MARGIN * largest[kind]:.6g}") for dtype, largest in LARGEST_OWN_ERROR.items()
    }


def limits(entries, given, dtype, in_float32=(), positions=0):
    """Return for each array how far it may be from what the reference makes of the arrays that a program of some dtype
    has ``given``.

    Where the program does not give an array, the operation that makes it is judged together with those downstream. The
    kinds of operations ``in_float32`` are calculated in float32 whatever the dtype, and so are positions and angles,
    unless that is float64. In the last of all ``positions``, rounding of angles rotates queries and keys most.
    """
    single = LARGEST_OWN_ERROR["float32"]
    largest = LARGEST_OWN_ERROR[dtype] | {kind: single[kind] for kind in in_float32}
    angles = 0.0 if dtype == "float64" and "rotation" not in in_float32 else ANGLE * positions
    found, carried, shown = {}, {}, set()
    for name, entry in entries.items():
        first = entry.same_as or name
        if not entry.same_as:
            # What the operations since the program's last arrays may have brought together.
            kind, of_angles = kind_of(entry), (entry.gauge or "").startswith("origin") and dtype != "float64"
            own = MARGIN * (single if of_angles else largest)[kind] + (angles if kind == "rotation" else 0.0)
            # Halves are what they were cut from.
            own *= entry.ops != ("split",)
            together = own + sum(carried[source] for source in entry.inputs if source not in shown)
            # A sum over all paths: through many hidden layers it would allow more than a whole pass may be off.
            whole = BOUNDS.get("float32" if in_float32 or of_angles else dtype, together)
            carried[name] = max(own, min(together, whole))
        found[name] = MARGIN * largest[SUM] if first in shown else max(MARGIN * largest[SUM], carried[first])
        if name in given:
            shown.add(first)
    return found
