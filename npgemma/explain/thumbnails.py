"""Thumbnails: any array as a small grey image of 8 bits; the page shows its exact numbers beside it."""

import numpy as np
from PIL import Image

ROWS, COLUMNS = 48, 64
# Colours of 8 bits from the smallest to the largest: lightness rises with the value, so that grey shows it too.
STOPS = ((24, 16, 62), (49, 66, 129), (39, 126, 142), (73, 187, 110), (243, 229, 80))
CHANNELS = [np.interp(range(256), np.linspace(0, 255, len(STOPS)), stops) for stops in zip(*STOPS)]
PALETTE = np.transpose(CHANNELS).round().astype(int).tolist()


def thumbnail(array, letters):
    """Reduce an array to at most `ROWS` by `COLUMNS` values of 8 bits, from its smallest mean (0) to its largest (255).

    Parameters
    ----------
    array : array
        Of a batch the first row is taken. Values that are not finite count as the smallest finite one.
    letters : str
        The array's axes.

    Returns
    -------
    uint8 array of two axes

    Examples
    --------
    >>> import numpy as np
    >>> thumbnail(np.array([[[0.0, 1.0], [2.0, 4.0]]]), "BTD")
    array([[  0,  64],
           [128, 255]], dtype=uint8)
    """
    grid = _as_grid(array, letters)
    finite = np.isfinite(grid)
    grid = np.where(finite, grid, grid[finite].min() if finite.any() else 0.0)
    return levels(means(means(grid, ROWS).T, COLUMNS).T)


def _as_grid(array, letters):
    """Lay an array out in rows and columns: tokens are rows, but of scores and weights every row is a query."""
    array = np.asarray(array, dtype=np.float64)
    if letters.startswith("B"):
        array, letters = array[0], letters[1:]
    if letters[:2] == "YX":
        array = array.reshape(*array.shape[:2], -1).mean(axis=-1)
    if array.ndim < 2:
        return array.reshape(1, -1)
    if letters.endswith("S"):
        return array.reshape(-1, array.shape[-1])
    return array.reshape(len(array), -1)


def means(grid, most):
    """Reduce the rows of a grid to at most ``most``, each the mean of neighbours."""
    if len(grid) <= most:
        return grid
    starts = np.arange(most) * len(grid) // most
    return np.add.reduceat(grid, starts, axis=0) / np.diff([*starts, len(grid)])[:, None]


def levels(grid):
    """Map the numbers of a grid to 8 bits, the smallest to 0 and the largest to 255."""
    low, high = grid.min(), grid.max()
    return np.round((grid - low) * (255 / (high - low if high > low else 1.0))).astype(np.uint8)


def tinted(level_RC):
    """Return a thumbnail as an image in the colours of `PALETTE`."""
    image = Image.fromarray(level_RC)
    image.putpalette(np.ravel(PALETTE).tolist())
    return image
