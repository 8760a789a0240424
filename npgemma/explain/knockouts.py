"""Knock-outs: how probable an answer token stays if the position that chooses it may not see some tokens."""

import numpy as np

from npgemma.machinery.backend import to_numpy
from npgemma.ops import softmax
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


def knockouts(inference, detections, pack):
    """Return the probability of every answer token under each knock-out: of regions, parts, and detections with a box.

    Returns
    -------
    dict
        ``side`` regions a row; ``region`` of each patch; ``groups``: names of the further knock-outs; ``probability``
        (tokens of the answer, 1 + regions + groups), the first with nothing hidden, in float64: many are next to 1.

    Notes
    -----
    Only the one position is computed again, beside the keys and values that all others left in the cache. What earlier
    positions took from a hidden token stays where they put it.
    """
    region, side = regions(inference.grid)
    groups = ["image", "bos", "prompt", "answer"]
    groups += [f"object.{i}" for i, detection in enumerate(detections) if detection["box"]]
    hidden = [_hidden(inference, token, region, detections) for token in range(inference.tokens)]
    probability = np.stack([_of_token(inference, token, rows) for token, rows in enumerate(hidden)])
    return {"side": side, "region": pack.integers(region), "groups": groups, "probability": pack.add(probability)}


def _hidden(inference, token, region, detections):
    """Return what each knock-out hides (knock-outs, tokens so far): the first nothing, none the newest token."""
    patches, prefix = inference.patches, inference.prefix
    place = np.arange(prefix + token)
    rows = [place < 0]
    rows += [np.isin(place, np.flatnonzero(region == i)) for i in range(region.max() + 1)]
    rows += [place < patches, place == patches, (place > patches) & (place < prefix), place >= prefix]
    boxes = [detection["shares"] for detection in detections if detection["box"]]
    rows += [np.isin(place, np.flatnonzero(shares >= 0.5)) for shares in boxes]
    hidden = np.stack(rows)
    hidden[:, -1] = False
    return hidden


def _of_token(inference, token, hidden):
    """Return the probability of one answer token under each knock-out."""
    config = inference.model.config.text
    each = 8 * config.layers * config.key_value_heads * config.head_width * hidden.shape[1]
    piece = max(1, CACHES // each)
    past = [
        np.stack([inference.past(token, layer, name)[:-1] for layer in range(inference.layers)])
        for name in ("k_BTKH", "v_BTKH")
    ]
    pieces = [hidden[start : start + piece] for start in range(0, len(hidden), piece)]
    return np.concatenate([_step(inference, token, past, rows) for rows in pieces])


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
    return softmax(logits[:, : model.tokenizer.size].astype(np.float64))[:, chosen]
