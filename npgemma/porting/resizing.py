"""Resizing as other programs do it: without antialiasing, and in floating point."""

import numpy as np
from PIL import Image


def sampled(kernel, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize to ``size`` (columns, rows) from the four nearest rows and columns, however many become one, as OpenCV and
    PyTorch do; return levels (rows, columns, 3), which may lie outside 0 to 255.

    Examples
    --------
    Two black rows and two white ones become two, taken at half a row after the first and before the last:

    >>> import numpy as np
    >>> from PIL import Image
    >>> rows = np.repeat([0, 0, 255, 255], 3).reshape(4, 1, 3).astype(np.uint8)
    >>> sampled(linear, Image.fromarray(rows), (1, 2))[:, 0, 0].tolist()
    [0.0, 255.0]
    """
    values_YXC = np.asarray(image, np.float32)
    for axis, new in enumerate(size[::-1]):
        old, moved = values_YXC.shape[axis], np.moveaxis(values_YXC, axis, 0)
        centre = (np.arange(new) + 0.5) * old / new - 0.5
        taps = np.floor(centre) + np.arange(-1, 3)[:, None]
        weights, taps = kernel(np.abs(taps - centre)).astype(np.float32), taps.clip(0, old - 1).astype(int)
        values_YXC = np.moveaxis(sum(w[:, None, None] * moved[tap] for w, tap in zip(weights, taps)), 0, axis)
    return values_YXC


def linear(d):
    """Weigh at a distance from 0 to 2 by the triangle of the nearest two."""
    return (1 - d).clip(0)


def cubic(d):
    """Weigh at a distance from 0 to 2 by Keys' kernel with -0.75."""
    return np.where(d <= 1, (1.25 * d - 2.25) * d * d + 1, -0.75 * (((d - 5) * d + 8) * d - 4) * (d < 2))


def by_channel(resample, dtype, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize with a filter of Pillow, each channel in a dtype: in float32 neither rounded to whole levels nor cut off
    at 0 and 255.
    """
    channels = [Image.fromarray(np.asarray(channel, dtype)).resize(size, resample) for channel in image.split()]
    return np.stack([np.asarray(channel) for channel in channels], -1).astype(np.float64)
