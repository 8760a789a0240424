"""Logits as they are shown: for each answer token, the tokens that it was chosen among."""

import numpy as np

# Of larger vocabularies only this many tokens a choice are kept, and the page says so.
MOST = 4096
# That many of them are named; the others stand on the page by their ids.
NAMED = 300


def most_probable(logits, count):
    """Return the ids of the most probable tokens, in descending order; among equal ones the lowest id first.

    Parameters
    ----------
    logits : array (..., V)
    count : int

    Returns
    -------
    int array (..., count)
    """
    return np.argsort(-logits, axis=-1, kind="stable")[..., :count]


def choices(inference, names, pack):
    """Return, for each answer token, the tokens it was chosen among.

    Returns
    -------
    dict
        ``ids`` and ``logits`` (tokens of the answer, tokens of the vocabulary), the most probable first; ``total``, the
        log of the sum of exponentials of all logits, so that probabilities are exact where not all are kept.
    """
    rows = [inference.logits(token) for token in range(inference.tokens)]
    order = [most_probable(row, MOST) for row in rows]
    names.add([ids[:NAMED] for ids in order])
    return {
        "ids": pack.integers(order),
        "logits": pack.floats([row[ids] for row, ids in zip(rows, order)]),
        "total": pack.add(np.array([np.logaddexp.reduce(row) for row in rows])),
        "vocabulary": len(rows[0]),
    }
