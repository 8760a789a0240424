"""From sixteen codes to a mask: the stages of the decoder of masks."""

import numpy as np

from npgemma import segmentation
from npgemma.answer import MASK_TOKENS
from npgemma.ops import convolve, convolve_transposed, relu


def stages(inference, objects, pack):
    """Return, for each object with a mask, its grid after every stage.

    Parameters
    ----------
    inference : Inference
    objects : list of dict
        Of `npgemma.explain.attention_maps.objects`.
    pack : Pack

    Returns
    -------
    list
        For each object None, or a list of arrays (rows, columns): the length of each cell's vector at 4 x 4 to 64 x 64
        cells, and last the mask itself.
    """
    p = inference.model.mask_params
    return [
        [pack.floats(grid) for grid in _stages(detection["codes"], p)]
        if p is not None and len(detection["codes"]) == MASK_TOKENS and max(detection["codes"]) < len(p.code)
        else None
        for detection in objects
    ]


def _stages(codes, p):
    """Return the grids of one mask; the same functions in the same order as `npgemma.segmentation.decode_masks`."""
    side = segmentation.SIDE
    x_BYXC = p.code[np.array([codes])].reshape(1, side, side, -1)
    grids = [x_BYXC]
    x_BYXC = relu(convolve(x_BYXC, p.first))
    for block_params in p.blocks:
        x_BYXC = segmentation.residual_block(x_BYXC, block_params)
    grids.append(x_BYXC)
    for doubling_params in p.doublings:
        x_BYXC = relu(convolve_transposed(x_BYXC, doubling_params))
        grids.append(x_BYXC)
    lengths = [np.linalg.norm(grid[0], axis=-1) for grid in grids]
    return [*lengths, segmentation.decode_masks(np.array([codes]), p)[0]]
