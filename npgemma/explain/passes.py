"""What is kept while an answer is made: the most probable tokens, and the attention weights of each pass."""

import contextlib
import fnmatch
from dataclasses import dataclass

import numpy as np

from npgemma.explain.attention_maps import WEIGHTS
from npgemma.explain.choices import most_probable
from npgemma.explain.token_names import text_of
from npgemma.machinery.backend import to_numpy
from npgemma.ops import softmax
from npgemma.probe.recording import record


@dataclass(frozen=True)
class Candidate:
    """A token that could have been chosen.

    Parameters
    ----------
    id : int
    text : str
        Of a token without text, such as the end token, its piece: ``<eos>``.
    logit, probability : float
        The probability is the softmax at temperature 1 over all tokens of the tokenizer, before any top-k or top-p.
    """

    id: int
    text: str
    logit: float
    probability: float


class Passes:
    """Keeps what is shown of the prefill, which chooses the answer's first token, and of each step.

    Parameters
    ----------
    tokens : int
        How many of the most probable tokens to keep.
    attention : bool
        Whether to keep the attention weights from each pass's last position, in the decoder.
    tokenizer : npgemma.tokenizer.Tokenizer

    Attributes
    ----------
    weights : dict of str to list of array
        By pass (``prefill.0``, ``step.0``): for each layer the weights (B, N, S).
    """

    def __init__(self, tokens, attention, tokenizer):
        self.tokens, self.attention, self.tokenizer = tokens, attention, tokenizer
        self.weights, self._places = {}, []

    def watch(self, name, value, statement):
        """Take an array as it is recorded; see `npgemma.record`."""
        call, _, rest = name.partition("/")
        if rest == "logit_BV" and self.tokens:
            logit_BV = to_numpy(value[:, : self.tokenizer.size]).astype(np.float64)
            id_BR = most_probable(logit_BV, self.tokens)
            logit_BR, probability_BR = (np.take_along_axis(x, id_BR, -1) for x in (logit_BV, softmax(logit_BV)))
            self._places.append((id_BR, logit_BR, probability_BR))
        elif self.attention and fnmatch.fnmatchcase(name, WEIGHTS):
            weight_BKGS = to_numpy(value[:, :, :, -1])
            B, K, G, S = weight_BKGS.shape
            self.weights.setdefault(call, []).append(weight_BKGS.reshape(B, K * G, S))

    def candidates(self, row, count):
        """Return the most probable tokens at each place of an answer.

        Parameters
        ----------
        row : int
            Of the batch.
        count : int
            Tokens of that answer.

        Returns
        -------
        list of list of Candidate
            The most probable first.
        """
        return [
            [
                Candidate(int(i), text_of(self.tokenizer, int(i)), float(logit), float(probability))
                for i, logit, probability in zip(*(array[row] for array in arrays))
            ]
            for arrays in self._places[:count]
        ]


@contextlib.contextmanager
def watched(model, tokens=0, attention=False):
    """Keep what is shown of the answers that are given inside a ``with`` block.

    Parameters
    ----------
    model : npgemma.Model
    tokens, attention : int, bool
        As for `Passes`.

    Yields
    ------
    Passes

    Examples
    --------
    >>> import npgemma
    >>> model = npgemma.load()
    >>> with watched(model, tokens=3) as passes:
    ...     answer = model.generate(npgemma.example_image(), "caption en", max_new_tokens=2)
    >>> [candidates[0].id for candidates in passes.candidates(0, 2)] == answer.token_ids
    True
    """
    passes = Passes(tokens, attention, model.tokenizer)
    # No name is empty: the arrays are watched, and none is copied whole.
    with record(only="", watch=passes.watch):
        yield passes
