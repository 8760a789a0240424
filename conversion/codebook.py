"""The file of the mask codebook, ``vae-oid.npz``: 49 arrays of a PyTorch autoencoder, of which the decoder is kept.

The published one is at ``gs://big_vision/paligemma/vae-oid.npz``. Its sizes follow from three numbers: codes, the width
of their vectors, and the channels of the inner layers (128, 512 and 128; ours has fewer).
"""

import os

import numpy as np

from npgemma.errors import InputError
from npgemma.files.npz import read_npz
from npgemma.params import ConvolutionParams, MaskBlockParams, MaskParams

FILE = "vae-oid.npz"
CODES = 128
# The published one has 34 MB, and its list of arrays 4 kB.
MOST_BYTES, MOST_LISTED = 100_000_000, 100_000


def layout(width, channels):
    """Return the shape of every array of the file, by name; the inner layers' channels are a multiple of 8."""
    shapes = {"_vq_vae._embedding": (CODES, width), "_vq_vae._ema_w": (CODES, width)}
    shapes["_vq_vae._ema_cluster_size"] = (CODES,)

    def layer(name, channels_out, *kernel):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = kernel, (channels_out,)

    def block(name):
        for i, side in ((0, 3), (2, 3), (4, 1)):
            layer(f"{name}.net.{i}", channels, channels, channels, side, side)

    halving = [1, channels // 8, channels // 4, channels // 2, channels]
    for i in range(4):
        layer(f"encoder.{2 * i}", halving[i + 1], halving[i + 1], halving[i], 4, 4)
    block("encoder.8")
    block("encoder.9")
    layer("encoder.10", width, width, channels, 1, 1)
    layer("decoder.0", channels, channels, width, 1, 1)
    block("decoder.2")
    block("decoder.3")
    doubling = [channels, channels, channels // 2, channels // 4, channels // 8]
    for i in range(4):
        # A transposed convolution is stored with the channels that go in first.
        layer(f"decoder.{4 + 2 * i}", doubling[i + 1], doubling[i], doubling[i + 1], 4, 4)
    layer("decoder.12", 1, 1, channels // 8, 1, 1)
    return shapes


def read_codebook(path: str | os.PathLike[str], dtype: str = "float32") -> MaskParams:
    """Read the decoder of a mask codebook.

    Parameters
    ----------
    path : str or os.PathLike
        A file in the layout of ``vae-oid.npz``.
    dtype : str
        ``float32`` or ``float64``.

    Returns
    -------
    MaskParams

    Raises
    ------
    InputError
        If an array is missing, left over, or of another shape, or the file is damaged.
    """
    missing = f"no mask codebook at '{path}'"
    arrays = read_npz(path, "an npz file", "fetch it again", missing, None, MOST_BYTES, MOST_LISTED)
    width, channels = (arrays.get(name, np.empty((0, 0))).shape for name in ("_vq_vae._embedding", "decoder.0.weight"))
    expected = layout(width[1] if len(width) == 2 else 0, channels[0] if channels else 0)
    _check(path, arrays, expected)

    def convolution(name, order=(1, 2, 3, 0)):
        kernel = arrays[f"{name}.weight"].transpose(order)
        return ConvolutionParams(kernel.astype(dtype), arrays[f"{name}.bias"].astype(dtype))

    def block(name):
        return MaskBlockParams(*(convolution(f"{name}.net.{i}") for i in (0, 2, 4)))

    return MaskParams(
        code=arrays["_vq_vae._embedding"].astype(dtype),
        first=convolution("decoder.0"),
        blocks=(block("decoder.2"), block("decoder.3")),
        doublings=tuple(convolution(f"decoder.{i}", (0, 2, 3, 1)) for i in (4, 6, 8, 10)),
        last=convolution("decoder.12"),
    )


def _check(path, arrays, expected):
    missing, foreign = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"holds {foreign[0]}, which does not belong there"
        raise InputError(f"mask codebook '{path}' {what}: expected the {len(expected)} arrays of {FILE}")
    for name, shape in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.kind != "f":
            found = f"{list(array.shape)} of {array.dtype}"
            raise InputError(f"mask codebook '{path}': {name} should be {list(shape)} of floats, found {found}")
        if not np.isfinite(array).all():
            raise InputError(f"mask codebook '{path}': {name} holds values that are not finite: fetch it again")
