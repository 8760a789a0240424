"""From sixteen mask tokens to a mask: what the ``<seg>`` of an answer to ``segment ...`` draw.

A language model predicts tokens, not pixels; so masks were given an alphabet. The answer names a box and sixteen of 128
codes, ``<seg000>`` to ``<seg127>``, tokens like any others. Each code stands for a vector; four rows of four vectors
are a very coarse image of the mask, which convolutions refine, doubling its sides four times: 64 x 64 cells, to be
stretched over the box. Codes and convolutions were trained together with an encoder: it made sixteen vectors of a mask,
each was replaced by the nearest of the 128 codes, and the convolutions had to draw the mask again, so that the codes
became the 128 most useful building blocks of masks. The encoder's codes of true masks are what PaliGemma was trained to
answer (a vector-quantised autoencoder, VQ-VAE: van den Oord et al., arXiv 1711.00937; for masks: Ning et al., arXiv
2301.02229). Official code: ``big_vision/evaluators/proj/paligemma/transfers/segmentation.py``.

*Next:* ``answer.py``.
"""

from npgemma.ops import convolve, convolve_transposed, relu

SIDE = 4  # sixteen codes: four rows of four


def decode_masks(code_BM, p):
    """Decode codes to masks.

    Parameters
    ----------
    code_BM : int array
        From 0 to 127, sixteen for each mask: four rows of four, in reading order.
    p : MaskParams

    Returns
    -------
    mask_BYX : array
        64 x 64 cells, about -1 (outside) to 1 (inside); what is over 0 belongs to the mask.
    """
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
    """Residual block: add to every cell what three convolutions make of the cells around it.

    ``near`` and ``far`` have kernels of 3 x 3 and together look two cells far; ``each`` has one of 1 x 1 and mixes the
    channels of each cell by itself. ``docs/by_hand.md`` has a small grid's numbers.

    Parameters
    ----------
    x_BYXC : array
    p : MaskBlockParams

    Returns
    -------
    out_BYXC : array
    """
    near_BYXC = relu(convolve(x_BYXC, p.near))
    far_BYXC = relu(convolve(near_BYXC, p.far))
    out_BYXC = x_BYXC + convolve(far_BYXC, p.each)
    return out_BYXC


def enlarge(x_BUWC, p):
    """Double the rows and columns of a grid: a transposed convolution, then ReLU.

    Parameters
    ----------
    x_BUWC : array
    p : ConvolutionParams

    Returns
    -------
    out_BYXO : array
    """
    out_BYXO = relu(convolve_transposed(x_BUWC, p))
    return out_BYXO
