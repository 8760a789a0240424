"""Logits as the page shows them: probabilities, the best tokens, and the names of tokens."""

import numpy as np

# Of larger vocabularies only this many tokens a choice are kept, and the page says so.
MOST = 4096


def probabilities(logits):
    """Return the softmax of logits, in float64.

    Examples
    --------
    >>> import numpy as np
    >>> probabilities(np.array([0.0, 0.0]))
    array([0.5, 0.5])
    """
    exponential = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def best(logits, count):
    """Return the ids of the best tokens, the most probable first; of equal ones the lowest id first."""
    return np.argsort(-logits, axis=-1, kind="stable")[..., :count]


def choices(inference, pack):
    """Return, for each answer token, the tokens it was chosen among.

    Parameters
    ----------
    inference : Inference
    pack : Pack

    Returns
    -------
    dict
        ``ids`` and ``logits`` (tokens of the answer, tokens of the vocabulary), the most probable first; ``total``, the
        log of the sum of exponentials of all logits, so that probabilities are exact where not all are kept.
    """
    rows = [inference.logits(token) for token in range(len(inference.answer.token_ids))]
    order = [best(row, MOST) for row in rows]
    highest = [row.max() for row in rows]
    totals = [top + np.log(np.exp(row - top).sum()) for row, top in zip(rows, highest)]
    return {
        "ids": pack.integers(order),
        "logits": pack.floats([row[ids] for row, ids in zip(rows, order)]),
        "total": pack.add(np.array(totals)),
        "vocabulary": len(rows[0]),
    }


class Names:
    """The names of tokens, for all ids that the page mentions."""

    def __init__(self, tokenizer):
        self.tokenizer, self.names = tokenizer, {}

    def add(self, ids):
        """Take ids; return them as a list."""
        ids = [int(i) for i in np.ravel(ids)]
        for i in set(ids) - self.names.keys():
            self.names[i] = self._name(i)
        return ids

    def _name(self, i):
        """Return a token as it is written in the vocabulary; the mark of a space in front becomes a space."""
        pieces, added = self.tokenizer.pieces, self.tokenizer.added
        if i in added:
            return added[i].content
        if i >= pieces.get_piece_size():
            return f"<{i}>"
        try:
            return pieces.id_to_piece(i).replace("\u2581", " ")
        except UnicodeDecodeError:
            return f"<{i}>"
