"""The twin of ``npgemma/segmentation.py``, which explains what both do."""

from torch_ref.ops import convolve, convolve_transposed, relu

SIDE = 4  # sixteen codes: four rows of four


def decode_masks(code_BM, p):
    """Decode codes to masks."""
    chosen_BMD = p.code[code_BM]
    coarse_BUWD = chosen_BMD.reshape(len(code_BM), SIDE, SIDE, -1)
    hidden_BUWC = relu(convolve(coarse_BUWD, p.first))
    for block_params in p.blocks:
        hidden_BUWC = residual_block(hidden_BUWC, block_params)
    # No letters for what doubles its rows and columns each time.
    growing = hidden_BUWC
    for doubling_params in p.doublings:
        growing = enlarge(growing, doubling_params)
    mask_BYX = convolve(growing, p.last)[..., 0]
    return mask_BYX


def residual_block(x_BYXC, p):
    """Residual block: add to every cell what three convolutions make of the cells around it."""
    near_BYXC = relu(convolve(x_BYXC, p.near))
    far_BYXC = relu(convolve(near_BYXC, p.far))
    out_BYXC = x_BYXC + convolve(far_BYXC, p.each)
    return out_BYXC


def enlarge(x_BUWC, p):
    """Double the rows and columns of a grid: a transposed convolution, then ReLU."""
    out_BYXO = relu(convolve_transposed(x_BUWC, p))
    return out_BYXO
