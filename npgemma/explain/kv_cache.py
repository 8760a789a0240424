"""The key/value cache: what prefill wrote, what each step added, and its size here and in a published model."""

from npgemma.config import PUBLISHED
from npgemma.explain.thumbnails import COLUMNS, levels, means

COMPARED = "paligemma-3b-224"


def cache(inference, pack):
    """Return what the page shows of the cache.

    Returns
    -------
    dict
        ``keys``: of each layer the keys of all tokens, a row each, the channels reduced as in a thumbnail; ``prefill``
        and ``held``: tokens in the cache at first and at last; ``numbers`` of a token; the same of a published model.
    """
    config, compared = inference.model.config, PUBLISHED[COMPARED]
    keys = []
    for layer in range(inference.layers):
        key_SC = inference.past(inference.tokens - 1, layer, "k_BTKH").reshape(-1, _width(config.text))
        keys.append(pack.add(levels(means(key_SC.T, COLUMNS).T)))
    return {
        "keys": keys,
        "prefill": inference.prefix,
        "held": inference.prefix + inference.tokens - 1,
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
