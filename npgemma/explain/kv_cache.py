"""The cache: what prefill wrote, what each step adds, and how many bytes that is, here and in the 3B model."""

import numpy as np

from npgemma.config import PUBLISHED
from npgemma.explain.thumbnails import COLUMNS

COMPARED = "paligemma-3b-224"


def cache(inference, pack):
    """Return what the page shows of the cache.

    Parameters
    ----------
    inference : Inference
    pack : Pack

    Returns
    -------
    dict
        ``keys``: of each layer a thumbnail of the keys of prefill, and a row for each step.
    """
    config, answer = inference.model.config, inference.answer.token_ids
    held = inference.prefix + len(answer) - 1
    compared = PUBLISHED[COMPARED]
    layers = []
    for layer in range(inference.layers):
        rows = [
            inference.block(token, layer, "grouped_query_attention.0/k_BTKH")[0].reshape(-1, _width(config.text))
            for token in range(len(answer))
        ]
        layers.append(pack.add(_strip(np.concatenate(rows))))
    return {
        "keys": layers,
        "prefill": inference.prefix,
        "held": held,
        "numbers": 2 * config.text.layers * _width(config.text),
        "bytes_each": inference.recording.whole["prefill.0/logit_BV"].itemsize,
        "context": config.text.context_length,
        "compared": {
            "name": COMPARED,
            "numbers": 2 * compared.text.layers * _width(compared.text),
            "all_heads": 2 * compared.text.layers * compared.text.query_heads * compared.text.head_width,
            "prefill": compared.image_tokens + len(inference.prompt_ids),
            "context": compared.text.context_length,
        },
    }


def _width(text):
    """Return how many keys, or values, a token leaves behind in one layer."""
    return text.key_value_heads * text.head_width


def _strip(key_SC):
    """Reduce the channels of all keys to some columns, the means of neighbours, in 8 bits; every token has its row."""
    columns = min(COLUMNS, key_SC.shape[1])
    edges = np.arange(columns) * key_SC.shape[1] // columns
    means = np.add.reduceat(key_SC, edges, axis=1) / np.diff([*edges, key_SC.shape[1]])
    low, high = means.min(), means.max()
    return np.round((means - low) * (255 / (high - low if high > low else 1.0))).astype(np.uint8)
