"""The projector, the bridge between the towers: one matrix and a bias.

The vision tower's vectors have another width than the decoder's, and their channels mean other things. One linear map
is enough to translate, because tower and decoder were trained further together with this map.

*Next:* ``tokenizer.py``.
"""

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
