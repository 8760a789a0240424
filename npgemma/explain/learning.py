"""What would have to change: gradients of the loss of each answer token, in the pixels and in the matrices."""

import dataclasses

import numpy as np

from npgemma.backward.answers import batch_of, gradients
from npgemma.errors import InputError
from npgemma.machinery.backend import numpy_backend, to_numpy
from npgemma.params import count, declared, leaves, map_leaves
from npgemma.siglip import patchify

# Only so many tokens of an answer are run backwards, and only models of at most so many parameters.
TOKENS, PARAMETERS = 16, 200_000_000


def learning(inference, pack):
    """Return the losses of the first `TOKENS` tokens, norms of their gradients, and NumPy's ``dtype`` in them.

    ``patches`` (tokens, patches) are norms of pixels, ``norms`` (tokens, ``names``) of matrices, biases and gains left
    out. If there are no gradients, ``left_out`` says why.
    """
    try:
        model = in_numpy(inference.model)
        losses, patches, norms = zip(*_passes(model, inference))
    except InputError as refusal:
        return {"left_out": str(refusal)}
    names = [leaf.name for leaf in declared(model.config) if leaf.kind == "weight"]
    norms = [[norm[name] for name in names] for norm in norms]
    arrays = {name: pack.floats(array) for name, array in [("loss", losses), ("patches", patches), ("norms", norms)]}
    return arrays | {"names": names, "dtype": model.backend.dtype}


def in_numpy(model):
    """Return the model with weights in which gradients can be calculated, or raise InputError if it is too large."""
    if (size := count(model.params)) > PARAMETERS:
        raise InputError(f"the model has {size:,} parameters, and gradients are calculated for up to {PARAMETERS:,}")
    dtype = "float64" if model.backend.dtype == "float64" else "float32"
    return dataclasses.replace(model, params=map_leaves(to_numpy, model.params), backend=numpy_backend(dtype))


def _passes(model, inference):
    """Yield the loss of one token after another, and the norms of its gradients by patch and by name of the weight."""
    answer, pixels = inference.answer.token_ids[:TOKENS], inference.image.pixels_BYXC
    batch = batch_of(model, pixels, [inference.prompt], [answer])
    for place in np.flatnonzero(batch.answer_BT):
        alone = dataclasses.replace(batch, answer_BT=np.arange(batch.answer_BT.size)[None] == place)
        loss, dpixels, dp = gradients(alone, model.params, model.config)
        patches = patchify(dpixels, model.config.vision.patch_size)[0]
        by_patch = np.linalg.norm(patches.reshape(len(patches), -1), axis=1)
        yield loss, by_patch, {name: np.linalg.norm(dweight) for name, _, dweight in leaves(dp)}
