"""The reference that ports are judged against: it calculates in float64, on weights rounded as the port's."""

import dataclasses

import numpy as np

from npgemma.fast.bfloat16 import BFloat16Weight, narrow
from npgemma.fast.products import product_in_blocks, rows_of
from npgemma.machinery.backend import numpy_backend, to_numpy
from npgemma.machinery.model import Model
from npgemma.params import leaves, map_leaves
from npgemma.porting.difference import same
from npgemma.porting.mistakes.injection import rounded_to_bfloat16

# A float64 copy of more weights than these would take more than 8 GB: they stay as they are held, and every product
# widens them block by block.
MOST_COPIED = 1_000_000_000


def exact(model: Model, dtype: str = "float64") -> Model:
    """Return a NumPy model that calculates in float64, on weights rounded as a port of this dtype (a key of
    `npgemma.porting.bounds.LARGEST_OWN_ERROR`) rounds them.
    """

    def wide(weight):
        return to_numpy(_rounded(weight, dtype)).astype(np.float64)

    if sum(leaf.size for _, _, leaf in leaves(model.params)) <= MOST_COPIED:
        params = map_leaves(wide, model.params)
    else:
        params = map_leaves(lambda weight: wide(weight) if weight.ndim == 1 else _held(weight, dtype), model.params)
        table = HeldTable(params.text.embedding)
        params = dataclasses.replace(params, text=dataclasses.replace(params.text, embedding=table))
    return dataclasses.replace(model, params=params, backend=numpy_backend("float64"))


@np.errstate(over="ignore")
def dtype_of(arrays: dict[str, np.ndarray]) -> str:
    """Return the dtype to which all of a port's numbers are rounded, ``bfloat16`` or ``float16``, whatever dtype they
    are stored in; otherwise ``float32``.
    """
    numbers = [array for array in arrays.values() if array.dtype.kind == "f" and array.size]
    fitting = (dtype for dtype in ("bfloat16", "float16") if all(same(_rounded(each, dtype), each) for each in numbers))
    return next(fitting, "float32") if numbers else "float32"


def _rounded(weight, dtype):
    """Return a weight with the numbers that a port of this dtype has, in whatever dtype holds them."""
    if isinstance(weight, BFloat16Weight):
        return weight
    return rounded_to_bfloat16(weight) if dtype == "bfloat16" else weight.astype(dtype)


def _held(weight, dtype):
    """Return a rounded matrix in the narrowest dtype that holds it; a product with float64 widens it in blocks."""
    if dtype == "bfloat16" and not isinstance(weight, BFloat16Weight):
        return BFloat16Weight(narrow(weight))
    return weight if dtype == "float64" else _rounded(weight, dtype)


@dataclasses.dataclass(frozen=True)
class HeldTable:
    """An embedding table that stays in its dtype, while its rows and products with it are float64."""

    held: np.ndarray | BFloat16Weight

    @property
    def shape(self):
        """The shape of the table."""
        return self.held.shape

    @property
    def ndim(self):
        """Number of axes."""
        return self.held.ndim

    def __getitem__(self, rows):
        """Return some rows in float64."""
        return self.held[rows].astype(np.float64)

    def multiply(self, x_RK, order):
        """Return the product of activations with this table, as `npgemma.fast.bfloat16.BFloat16Weight` does."""
        if isinstance(self.held, BFloat16Weight):
            return self.held.multiply(x_RK, order)
        return product_in_blocks([x_RK], rows_of(self.held, order, x_RK.shape[1]))
