"""What the model sees: the image as it came and as it was resized, its patches, and their positions."""

import io

import numpy as np

# The image as a person sees it is kept at most this large.
LONGEST = 640
# The similarities of more positions than this would take more room than they tell.
MOST_POSITIONS = 1024


def image(inference, original, pack):
    """Return what the page shows of the image.

    Parameters
    ----------
    inference : Inference
    original : PIL.Image.Image
        As a person sees it.
    pack : Pack

    Returns
    -------
    dict
    """
    model, whole = inference.model, inference.recording.whole
    pixels_YXC = whole["encode_image.0/pixels_BYXC"][0]
    small = original.copy()
    small.thumbnail((LONGEST, LONGEST))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=88)
    low, high = float(pixels_YXC.min()), float(pixels_YXC.max())
    projected_TD = whole["encode_image.0/encode.0/embed_patches.0/projected_BTD"][0]
    return {
        "original": pack.bytes(file.getvalue()),
        "size": list(inference.image.size),
        "shown": list(small.size),
        "side": len(pixels_YXC),
        "patch": model.config.vision.patch_size,
        "grid": len(pixels_YXC) // model.config.vision.patch_size,
        "range": [low, high],
        # From -1 to 1 in the model: here the 8 bits that they were made from.
        "pixels": pack.add(np.round((pixels_YXC.astype(np.float64) + 1) * 127.5).clip(0, 255).astype(np.uint8)),
        "embedding": pack.floats(projected_TD) if len(projected_TD) <= MOST_POSITIONS else None,
        "similarity": _similarity(model.params.vision.position_embedding, pack),
    }


def _similarity(position_embedding, pack):
    """Return the cosine of every two position embeddings, in 8 bits from -1 to 1."""
    from npgemma.machinery.backend import to_numpy

    position_TD = to_numpy(position_embedding).astype(np.float64)
    if len(position_TD) > MOST_POSITIONS:
        return None
    length_T1 = np.linalg.norm(position_TD, axis=1, keepdims=True)
    unit_TD = position_TD / np.where(length_T1 > 0, length_T1, 1.0)
    return pack.add(np.round((unit_TD @ unit_TD.T + 1) * 127.5).clip(0, 255).astype(np.uint8))
