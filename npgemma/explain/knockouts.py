"""Knock-outs: how probable an answer token stays if the position that chooses it may not see some tokens."""

import math

import numpy as np

from npgemma.explain.probabilities import probabilities
from npgemma.machinery.backend import to_numpy
from npgemma.porting.mistakes.injection import in_decoders
from npgemma.probe.exchange import exchanged

# Of a grid with more patches, patches are taken together in this many regions a side.
SIDE = 8
# Most bytes of copied caches at a time.
CACHES = 2**28


def regions(grid):
    """Return the region of each patch, and how many regions a row has.

    Examples
    --------
    >>> regions(2)
    (array([0, 1, 2, 3]), 2)
    >>> regions(16)[0][:4], regions(16)[1]
    (array([0, 0, 1, 1]), 8)
    """
    side = min(grid, SIDE)
    along = np.arange(grid) * side // grid
    return (along[:, None] * side + along).ravel(), side


def knockouts(inference, objects, pack):
    """Return the probability of every answer token under each knock-out.

    Parameters
    ----------
    inference : Inference
    objects : list of dict
        Of `npgemma.explain.attention_maps.objects`; those with a box are knocked out whole.
    pack : Pack

    Returns
    -------
    dict
        ``side`` regions a row; ``groups``: names of the further knock-outs; ``probability`` (tokens of the answer, 1 +
        regions + groups), the first with nothing hidden.

    Notes
    -----
    Only the one position is computed again, beside the keys and values that all others left in the cache. What earlier
    positions took from a hidden token stays where they put it.
    """
    region, side = regions(round(inference.patches**0.5))
    groups = ["image", "bos", "prompt", "answer"]
    groups += [f"object.{i}" for i, detection in enumerate(objects) if detection["box"]]
    tokens = range(len(inference.answer.token_ids))
    probability = np.stack(
        [_of_token(inference, token, _hidden(inference, token, region, objects)) for token in tokens]
    )
    return {"side": side, "region": pack.integers(region), "groups": groups, "probability": pack.floats(probability)}


def _hidden(inference, token, region, objects):
    """Return what each knock-out hides (knock-outs, tokens so far): the first nothing, none the newest token."""
    patches, prefix = inference.patches, inference.prefix
    total = prefix + token
    place = np.arange(total)
    rows = [np.zeros(total, dtype=bool)]
    for i in range(region.max() + 1):
        rows.append(np.isin(place, np.flatnonzero(region == i)))
    rows += [place < patches, place == patches, (place > patches) & (place < prefix), place >= prefix]
    for detection in objects:
        if detection["box"]:
            rows.append(np.isin(place, np.flatnonzero(detection["shares"] >= 0.5)))
    hidden = np.stack(rows)
    hidden[:, -1] = False
    return hidden


def _of_token(inference, token, hidden):
    """Return the probability of one answer token under each knock-out."""
    config = inference.model.config.text
    total = hidden.shape[1]
    each = 8 * config.layers * config.key_value_heads * config.head_width * total
    piece = max(1, CACHES // each)
    past = [_past(inference, token, name) for name in ("k_BTKH", "v_BTKH")]
    found = []
    for start in range(0, len(hidden), math.ceil(piece)):
        found.append(_step(inference, token, past, hidden[start : start + piece]))
    return np.concatenate(found)


def _past(inference, token, name):
    """Return keys or values of all tokens before the newest (layers, tokens, K, H), as prefill and steps left them."""
    calls = range(token + 1)
    layers = []
    for layer in range(inference.layers):
        parts = [inference.block(each, layer, f"grouped_query_attention.0/{name}")[0] for each in calls]
        layers.append(np.concatenate(parts)[:-1])
    return np.stack(layers)


def _step(inference, token, past, hidden):
    """Compute the newest position again, once for each row of ``hidden``, beside the cache of the others."""
    model, total = inference.model, hidden.shape[1]
    backend, ids = model.backend, [*inference.prompt_ids, *inference.answer.token_ids]
    newest = ids[len(inference.prompt_ids) - 1 + token]
    allowed = backend.to_array(~hidden)[:, None, :]

    def hiding(module, right):
        return lambda *given: right(*given) & allowed

    changes = in_decoders("prefix_lm", hiding) | {"gemma2.sliding_window": hiding}
    with exchanged(changes, inference.package), backend.session():
        like = backend.to_activation(past[0])
        cache = backend.make_cache(model.config.text, len(hidden), total, like)
        for held, recorded in ((cache.k_LBSKH, past[0]), (cache.v_LBSKH, past[1])):
            held[:, :, : total - 1] = backend.to_activation(recorded)[:, None]
        cache.advance(total - 1)
        valid = backend.to_array(np.ones(hidden.shape, dtype=bool))
        step = backend.to_array(np.full((len(hidden), 1), newest)), valid
        logits = to_numpy(backend.step(*step, model.params, model.config, cache))
    chosen = inference.answer.token_ids[token]
    return probabilities(logits[:, : model.tokenizer.size].astype(np.float64))[:, chosen]
