"""How a token is written where people read it."""

import numpy as np


def text_of(tokenizer, i):
    """Return the text of a token; of one without text, such as the end token, its piece.

    Examples
    --------
    >>> import npgemma
    >>> tokenizer = npgemma.load().tokenizer
    >>> [text_of(tokenizer, i) for i in (tokenizer.eos, *tokenizer.encode("red\u00e9"), tokenizer.size)]
    ['<eos>', 'red', '<0xC3>', '<0xA9>', '<1635>']
    """
    text = tokenizer.decode([i])
    # A byte of a longer character is no text by itself.
    if text and "\ufffd" not in text:
        return text
    return tokenizer.pieces.id_to_piece(i) if i < tokenizer.pieces.get_piece_size() else f"<{i}>"


class Names:
    """The names of all tokens that the page mentions.

    Attributes
    ----------
    names : dict of int to str
    """

    def __init__(self, tokenizer):
        self.tokenizer, self.names = tokenizer, {}

    def add(self, ids):
        """Take ids; return them as a list."""
        ids = [int(i) for i in np.ravel(ids)]
        for i in set(ids) - self.names.keys():
            self.names[i] = text_of(self.tokenizer, i)
        return ids
