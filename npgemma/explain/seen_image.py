"""What the model sees: the image as it came and as it was resized, its patches, and their positions."""

import io

import numpy as np

from npgemma.machinery.backend import to_numpy

# The longest side of the image as it came, in pixels of the page.
LONGEST = 640
# With more patches, their embeddings and the similarities of their positions are left out.
MOST_PATCHES = 1024


def as_seen(pixels_YXC, preprocessing):
    """Return the square that the model sees, made from its pixels again.

    Parameters
    ----------
    pixels_YXC : float array
        From -1 to 1 in published checkpoints.
    preprocessing : npgemma.image.Preprocessing
        That has made the pixels.

    Returns
    -------
    uint8 array (rows, columns, 3)

    Examples
    --------
    >>> import numpy as np
    >>> from npgemma.image import PUBLISHED
    >>> as_seen(np.array([[[-1.0, 0.0, 1.0]]]), PUBLISHED)
    array([[[  0, 128, 255]]], dtype=uint8)
    """
    value_YXC = (pixels_YXC * np.array(preprocessing.deviation) + preprocessing.mean) / preprocessing.factor
    return value_YXC.round().clip(0, 255).astype(np.uint8)


def image(inference, original, pack):
    """Return what the page shows of the image; ``original`` is the Pillow image as a person sees it."""
    model, whole = inference.model, inference.recording.whole
    pixels_YXC = whole["encode_image.0/pixels_BYXC"][0]
    projected_TD = whole["encode_image.0/encode.0/embed_patches.0/projected_BTD"][0]
    small, file = original.copy(), io.BytesIO()
    small.thumbnail((LONGEST, LONGEST))
    small.save(file, "JPEG", quality=88)
    few = len(projected_TD) <= MOST_PATCHES
    return {
        "original": pack.bytes(file.getvalue()),
        "size": list(inference.image.size),
        "shown": list(small.size),
        "side": len(pixels_YXC),
        "patch": model.config.vision.patch_size,
        "grid": inference.grid,
        "pixels": pack.add(as_seen(pixels_YXC, model.preprocessing)),
        "embedding": pack.floats(projected_TD) if few else None,
        "similarity": pack.add(_similarity(model.params.vision.position_embedding)) if few else None,
    }


def _similarity(position_embedding):
    """Return the cosine of every two position embeddings (T, T), in 8 bits from -1 to 1."""
    position_TD = to_numpy(position_embedding).astype(np.float64)
    length_T1 = np.linalg.norm(position_TD, axis=1, keepdims=True)
    unit_TD = position_TD / np.where(length_T1 > 0, length_T1, 1.0)
    return np.round((unit_TD @ unit_TD.T + 1) * 127.5).clip(0, 255).astype(np.uint8)
