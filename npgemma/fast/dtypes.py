"""The one table of dtypes that weights can be held in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DType:
    """What a model's matrices are held in, and what is calculated with them."""

    name: str
    bytes: int  # of one entry of a matrix; biases and norms are held in the dtype of the activations
    activations: str  # in which NumPy calculates; it has no bfloat16, and int8 weights have a factor for each row
    torch: bool = True  # whether the torch backend has this dtype, for weights and activations alike


# Each takes less memory than the one before it, and is less exact.
DTYPES = {
    dtype.name: dtype
    for dtype in (
        DType("float64", 8, "float64"),
        DType("float32", 4, "float32"),
        DType("bfloat16", 2, "float32"),
        DType("int8", 1, "float32", torch=False),
    )
}
