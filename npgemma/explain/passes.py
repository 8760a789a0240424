"""What an answer's passes leave to look at: the most probable tokens, and the attention of each token of the answer."""

import contextlib
import re
from dataclasses import dataclass

import numpy as np

from npgemma.machinery.backend import to_numpy
from npgemma.probe.recording import record

# Where an answer's tokens read from, in the order of the sequence.
PARTS = ("image", "<bos>", "prompt", "answer")
LAYER = re.compile(r".*/run_blocks\.0/block\.(\d+)/grouped_query_attention\.0/attend\.0/weight_BKGTS")


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
    """Keeps what is to be looked at of the prefill, which chooses the answer's first token, and of each step.

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
        self.weights, self._most = {}, []

    def watch(self, name, value, statement):
        """Take an array as it is recorded; see `npgemma.record`."""
        call, _, rest = name.partition("/")
        if rest == "logit_BV" and self.tokens:
            self._most.append(_most_probable(to_numpy(value[:, : self.tokenizer.size]), self.tokens))
        elif self.attention and LAYER.fullmatch(name):
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
            for arrays in self._most[:count]
        ]


def _most_probable(logit_BV, most):
    """Return ids, logits and probabilities of the most probable tokens, (B, most) each."""
    id_BR = np.argsort(-logit_BV, axis=-1, kind="stable")[:, :most]
    exponential_BV = np.exp(logit_BV.astype(np.float64) - logit_BV.max(axis=-1, keepdims=True))
    probability_BV = exponential_BV / exponential_BV.sum(axis=-1, keepdims=True)
    return id_BR, *(np.take_along_axis(array, id_BR, axis=-1) for array in (logit_BV, probability_BV))


@contextlib.contextmanager
def watched(model, tokens=0, attention=False):
    """Keep what is to be looked at of the answer that is given inside a ``with`` block.

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
    >>> [[candidate.id for candidate in place][0] for place in passes.candidates(0, 2)] == answer.token_ids
    True
    """
    passes = Passes(tokens, attention, model.tokenizer)
    # No name is empty: the arrays are watched, and none is copied whole.
    with record(only="", watch=passes.watch):
        yield passes


def text_of(tokenizer, i):
    """Return what to show of a token: its text; of one without text, its piece.

    Examples
    --------
    >>> import npgemma
    >>> tokenizer = npgemma.load().tokenizer
    >>> [text_of(tokenizer, i) for i in (tokenizer.eos, *tokenizer.encode("red"))]
    ['<eos>', 'red']
    """
    text = tokenizer.decode([i])
    whole = text and "\ufffd" not in text
    return text if whole or i >= tokenizer.pieces.get_piece_size() else tokenizer.pieces.id_to_piece(i)


@dataclass(frozen=True)
class Attention:
    """Where the tokens of one answer read from.

    Parameters
    ----------
    weight_TLNS : list of array (L, N, S)
        For each token of the answer, the weights of the position that chose it; S grows by one each time.
    images : int
        Images of the prompt.
    image_tokens : int
        Of all images together.
    prompt_tokens : int
        ``<bos>`` and newline included.
    """

    weight_TLNS: list[np.ndarray]
    images: int
    image_tokens: int
    prompt_tokens: int

    def shares(self, token, layer, head):
        """Return which part of a head's weight each of `PARTS` gets; they add up to 1."""
        weight_S, first = self.weight_TLNS[token][layer, head], self.image_tokens
        ends = np.cumsum([first, 1, self.prompt_tokens - 1])
        return [float(part.sum()) for part in np.split(weight_S, ends)]

    def map(self, token, layer, head):
        """Return the weights on the patches (U, W) as they lie in the image; several images side by side."""
        weight_P = self.weight_TLNS[token][layer, head, : self.image_tokens]
        side = round((self.image_tokens // self.images) ** 0.5)
        return weight_P.reshape(self.images, side, side).transpose(1, 0, 2).reshape(side, -1)

    def sharpest(self, most):
        """Return the heads that look at the image most sharply.

        Parameters
        ----------
        most : int

        Returns
        -------
        list of (int, int)
            Layer and head, counted from 0, by the largest weight on one patch, averaged over the answer's tokens; the
            largest first.
        """
        peak_LN = np.mean([weight[..., : self.image_tokens].max(axis=-1) for weight in self.weight_TLNS], axis=0)
        places = np.argsort(-peak_LN.ravel(), kind="stable")[:most]
        return [(int(place) // peak_LN.shape[1], int(place) % peak_LN.shape[1]) for place in places]


def attention_of(passes, answer, images, prompt_tokens):
    """Return the attention of a batch's only answer.

    Parameters
    ----------
    passes : Passes
    answer : npgemma.Generation
    images : int
        Images of the prompt.
    prompt_tokens : int
        ``<bos>`` and newline included.

    Returns
    -------
    Attention
    """
    weights = [np.stack([weight[0] for weight in layers]) for layers in passes.weights.values()]
    return Attention(weights[: len(answer.token_ids)], images, weights[0].shape[-1] - prompt_tokens, prompt_tokens)


def as_seen(pixels_YXC, preprocessing):
    """Return the square that the model sees, made from its pixels again.

    Parameters
    ----------
    pixels_YXC : float array
        From -1 to 1 in published checkpoints.
    preprocessing : npgemma.image.Preprocessing
        That has made the pixels.

    Returns
    -------
    uint8 array (rows, columns, 3)

    Examples
    --------
    >>> import numpy as np
    >>> from npgemma.image import PUBLISHED
    >>> as_seen(np.array([[[-1.0, 0.0, 1.0]]]), PUBLISHED)
    array([[[  0, 128, 255]]], dtype=uint8)
    """
    value_YXC = (pixels_YXC * np.array(preprocessing.deviation) + preprocessing.mean) / preprocessing.factor
    return value_YXC.round().clip(0, 255).astype(np.uint8)
