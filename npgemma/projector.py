"""The bridge between the towers: one matrix and a bias."""

from npgemma.ops import einsum


def project(features_BPE, p):
    """Map each patch vector from the vision tower's width to the decoder's.

    Parameters
    ----------
    features_BPE : array
        P patch vectors of the vision tower's width E.
    p : ProjectorParams

    Returns
    -------
    image_BPD : array
        Image tokens. They enter the decoder as they are: only text is scaled (`npgemma.gemma.embed_tokens`).
    """
    image_BPD = einsum("BPE,ED->BPD", features_BPE, p.linear) + p.bias
    return image_BPD
