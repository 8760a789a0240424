"""Which token may attend to which, over the whole sequence: the mask that ran."""

import fnmatch

import numpy as np

# A larger mask is not shown.
MOST_TOKENS = 1200
# Of the first block of the decoder, in prefill and in each step; what is recorded for this part.
MASKS = "*/run_blocks.0/block.0/mask_BTS"


def mask(arrays, pack):
    """Return the mask that ran.

    Parameters
    ----------
    arrays : dict of str to array
        Of a recording of at least `MASKS`.
    pack : Pack

    Returns
    -------
    dict or None
        None where the matrix would be too large.
    """
    calls = [array for name, array in arrays.items() if fnmatch.fnmatchcase(name, MASKS)]
    total = sum(mask_BTS.shape[1] for mask_BTS in calls)
    return pack.add(joined(calls, total)) if total <= MOST_TOKENS else None


def joined(calls, total):
    """Join the masks of prefill and steps.

    Parameters
    ----------
    calls : list of arrays (B, T, S)
        In order: of prefill, and of each step.
    total : int
        All tokens.

    Returns
    -------
    uint8 array (total, total)
        1 where the row's token may attend to the column's.
    """
    matrix, row = np.zeros((total, total), dtype=np.uint8), 0
    for mask_BTS in calls:
        new, past = mask_BTS.shape[1:]
        matrix[row : row + new, :past] = mask_BTS[0]
        row += new
    return matrix
