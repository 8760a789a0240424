"""From sixteen codes to a mask: the grids on the way, recorded while the model's own decoder runs."""

import fnmatch

import numpy as np

from npgemma import record, segmentation
from npgemma.answer import MASK_TOKENS

# The codes' vectors, what the residual blocks made of them, and each larger grid.
STAGES = "decode_masks.0/coarse_BUWD", "decode_masks.0/enlarge.0/x_BUWC", "decode_masks.0/enlarge.*/out_BYXO"


def stages(codes, p, pack):
    """Return the grid of a mask after every stage.

    Parameters
    ----------
    codes : list of int
        Of one object.
    p : MaskParams or None
    pack : Pack

    Returns
    -------
    list or None
        Arrays (rows, columns): the length of each cell's vector at 4 x 4 to 64 x 64 cells, and last the mask itself.
        None if the codes are not a mask's.
    """
    if p is None or len(codes) != MASK_TOKENS or max(codes) >= len(p.code):
        return None
    with record("decode_masks.0/*") as arrays:
        mask_BYX = segmentation.decode_masks(np.array([codes]), p)
    grids = [array for name, array in arrays.items() if any(fnmatch.fnmatchcase(name, stage) for stage in STAGES)]
    return [pack.floats(grid) for grid in [*(np.linalg.norm(grid[0], axis=-1) for grid in grids), mask_BYX[0]]]
