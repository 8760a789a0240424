"""The twin of ``npgemma/projector.py``, which explains what both do."""

from torch_ref.ops import einsum


def project(features_BPE, p):
    """Map each patch vector from the vision tower's width to the decoder's."""
    image_BPD = einsum("BPE,ED->BPD", features_BPE, p.linear) + p.bias
    return image_BPD
