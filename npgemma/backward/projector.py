"""The projector backwards: what goes back to its features is all that the vision tower ever learns from answers.

*Next:* ``backward/gemma.py``.
"""

from npgemma.backward.ops import einsum_backward, sum_over_uses
from npgemma.params import ProjectorParams


def project_backward(dimage_BPD, features_BPE, p):
    """Return the gradients of the patch vectors and of the weights; the bias, added to every patch, sums over them."""
    dfeatures_BPE, dlinear = einsum_backward(dimage_BPD, "BPE,ED->BPD", features_BPE, p.linear)
    return dfeatures_BPE, ProjectorParams(linear=dlinear, bias=sum_over_uses(dimage_BPD, p.bias))
