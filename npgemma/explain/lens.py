"""The logit lens: which tokens each layer would choose if it were the last."""

import importlib

import numpy as np

from npgemma.explain.probabilities import best, probabilities
from npgemma.machinery.backend import to_numpy

BEST = 5
# Of larger vocabularies only the positions that answer tokens were chosen from are looked at.
LARGE = 20000
# Positions unembedded at a time.
PIECE = 64


def decoder_of(inference):
    """Return the decoder's module, of the backend that ran."""
    paligemma = importlib.import_module(f"{inference.package}.paligemma")
    return paligemma.decoder_of(inference.model.config)


def lens(inference, names, pack):
    """Return the best tokens after each layer.

    Parameters
    ----------
    inference : Inference
    names : Names
    pack : Pack

    Returns
    -------
    dict
        ``first``: the first position looked at; ``ids`` and ``probabilities`` (positions, layers + 1, 5), of
        which layer 0 is the embedding, before any block.
    """
    whole = inference.recording.whole
    everything = inference.model.config.text.vocabulary <= LARGE
    first = 0 if everything else inference.prefix - 1
    calls = [inference.call(token) for token in range(len(inference.answer.token_ids))]
    states = []
    for layer in range(inference.layers + 1):
        place = "x_BTD" if layer == 0 else f"block.{layer - 1}/out_BTD"
        states.append(np.concatenate([whole[f"{call}/run_blocks.0/{place}"][0] for call in calls])[first:])
    state_RD = np.stack(states, axis=1).reshape(-1, states[0].shape[-1])
    ids, shares = [], []
    for start in range(0, len(state_RD), PIECE):
        logits = logits_of(inference, state_RD[start : start + PIECE])
        order = best(logits, BEST)
        ids.append(order)
        shares.append(np.take_along_axis(probabilities(logits), order, axis=-1))
    shape = (-1, inference.layers + 1, BEST)
    ids = np.concatenate(ids).reshape(shape)
    names.add(ids)
    return {
        "first": first,
        "ids": pack.integers(ids),
        "probabilities": pack.floats(np.concatenate(shares).reshape(shape)),
    }


def logits_of(inference, state_TD):
    """Apply the decoder's last norm and its output head to vectors of the residual stream."""
    model, decoder = inference.model, decoder_of(inference)
    with model.backend.session():
        state_BTD = model.backend.to_activation(state_TD[None])
        final_BTD = decoder.rms_norm(state_BTD, model.params.text.norm, model.config.text.epsilon)
        logits = decoder.unembed(final_BTD, model.params.text, model.config.text)
    return to_numpy(logits)[0, :, : model.tokenizer.size].astype(np.float64)
