"""The logit lens: which tokens each layer would choose if it were the last."""

import importlib

import numpy as np

from npgemma.explain.choices import most_probable
from npgemma.machinery.backend import to_numpy
from npgemma.ops import softmax

BEST = 5
# Of larger vocabularies only the positions that answer tokens were chosen from are shown.
LARGE = 20000
# Positions unembedded at a time.
PIECE = 64


def lens(inference, names, pack):
    """Return the best tokens after each layer.

    Returns
    -------
    dict
        ``first``: the first position shown; ``ids`` and ``probabilities`` (positions, layers + 1, 5), of
        which layer 0 is the embedding, before any block.
    """
    whole = inference.recording.whole
    first = inference.prefix - 1 if inference.model.config.text.vocabulary > LARGE else 0
    calls = [inference.call(token) for token in range(inference.tokens)]
    states = []
    for layer in range(inference.layers + 1):
        place = "x_BTD" if layer == 0 else f"block.{layer - 1}/out_BTD"
        states.append(np.concatenate([whole[f"{call}/run_blocks.0/{place}"][0] for call in calls])[first:])
    state_RD = np.stack(states, axis=1).reshape(-1, states[0].shape[-1])
    ids, probabilities = [], []
    for start in range(0, len(state_RD), PIECE):
        logits = logits_of(inference, state_RD[start : start + PIECE])
        ids.append(most_probable(logits, BEST))
        probabilities.append(np.take_along_axis(softmax(logits), ids[-1], axis=-1))
    names.add(np.concatenate(ids))
    shape = (-1, inference.layers + 1, BEST)
    ids, probabilities = (np.concatenate(pieces).reshape(shape) for pieces in (ids, probabilities))
    return {"first": first, "ids": pack.integers(ids), "probabilities": pack.floats(probabilities)}


def logits_of(inference, state_TD):
    """Apply the decoder's last norm and its output head to vectors of the residual stream."""
    model = inference.model
    decoder = importlib.import_module(f"{inference.package}.paligemma").decoder_of(model.config)
    with model.backend.session():
        state_BTD = model.backend.to_activation(state_TD[None])
        final_BTD = decoder.rms_norm(state_BTD, model.params.text.norm, model.config.text.epsilon)
        logits = decoder.unembed(final_BTD, model.params.text, model.config.text)
    return to_numpy(logits)[0, :, : model.tokenizer.size].astype(np.float64)
