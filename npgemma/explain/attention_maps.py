"""Which tokens each answer token attends to: the weights of the position that chose it, in every head."""

from dataclasses import dataclass

import numpy as np

# The weights of the decoder's blocks, in a recording.
WEIGHTS = "*/grouped_query_attention.0/attend.0/weight_BKGTS"
# Where an answer's tokens read from, in the order of the sequence; each has one colour everywhere (Okabe and Ito's).
PARTS = {"image": "#0072B2", "<bos>": "#7F7F7F", "prompt": "#56B4E9", "answer": "#E69F00"}
# If all weights on the page would take more bytes, those of neighbouring patches are added up.
MOST_BYTES = 12e6


@dataclass(frozen=True)
class Attention:
    """The attention weights of one answer.

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
        """Return the heads with the largest weight on one patch, averaged over the answer's tokens.

        Parameters
        ----------
        most : int

        Returns
        -------
        list of (int, int)
            Layer and head, counted from 0, the largest weight first.
        """
        peak_LN = np.mean([weight[..., : self.image_tokens].max(axis=-1) for weight in self.weight_TLNS], axis=0)
        places = np.argsort(-peak_LN.ravel(), kind="stable")[:most]
        return [(int(place) // peak_LN.shape[1], int(place) % peak_LN.shape[1]) for place in places]


def attention_of(passes, answer, images, prompt_tokens):
    """Return the attention of a batch's only answer.

    Parameters
    ----------
    passes : npgemma.explain.passes.Passes
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


def attention(inference, pack):
    """Return the attention weights of the positions that the answer tokens were chosen from.

    Returns
    -------
    dict
        ``grid``, regions in a row of the image; ``pool``, patches in a row of a region; and ``weights``: for each
        answer token an array (layers, query heads, regions, then text tokens so far).
    """
    pool, patches = pooling(inference), inference.patches
    grid, rows = inference.grid // pool, []
    for token in range(inference.tokens):
        weight_LNS = inference.attention(token)
        image = weight_LNS[..., :patches].reshape(*weight_LNS.shape[:2], grid, pool, grid, pool)
        regions = image.sum(axis=(3, 5)).reshape(*weight_LNS.shape[:2], -1)
        rows.append(pack.floats(np.concatenate([regions, weight_LNS[..., patches:]], axis=-1)))
    return {"grid": grid, "pool": pool, "weights": rows}


def pooling(inference):
    """Return how many patches in a row are added up to one region, so that all weights take `MOST_BYTES` at most."""
    grid, text = inference.grid, inference.model.config.text
    each = 4 * text.layers * text.query_heads * inference.tokens
    fitting = (pool for pool in range(1, grid) if grid % pool == 0 and each * (grid // pool) ** 2 <= MOST_BYTES)
    return next(fitting, grid)
