"""Mistakes in the order of tokens: how they are rotated and cached, and which of them see which."""

import numpy as np

from npgemma.porting.mistakes.injection import Mistake, image_tokens, in_decoders, like, rounded_to_bfloat16


def _interleaved(module, right):
    def wrong(x_BTNH, angle_BTh):
        H = x_BTNH.shape[-1]
        # Neighbours are brought to where the right function looks for a pair, and back again.
        apart = [*range(0, H, 2), *range(1, H, 2)]
        return right(x_BTNH[..., apart], angle_BTh)[..., [apart.index(h) for h in range(H)]]

    return wrong


def _reversed(module, right):
    return lambda x_BTNH, angle_BTh: right(x_BTNH, -angle_BTh)


def _theta(value):
    return in_decoders("angles", lambda module, right: lambda position, width, theta: right(position, width, value))


def _rounded_frequencies(module, right):
    def wrong(position_BT, head_width, rope_theta):
        half = head_width // 2
        frequency = rounded_to_bfloat16(rope_theta ** (-np.arange(half) / half))
        return position_BT[:, :, None] * like(right(position_BT, head_width, rope_theta), frequency)

    return wrong


def _rounded_angles(module, right):
    return lambda *given: rounded_to_bfloat16(right(*given))


def _shifted(by):
    """Return the changes that number the tokens of the answer, one at a time, from another position on."""

    def wrong(module, right):
        return lambda valid_BS, new: right(valid_BS, new) + by * (new == 1)

    return (in_decoders("positions", wrong),)


class _StoresOthers:
    """A layer's cache that stores other keys and values of new tokens than attention reads in their own pass."""

    def __init__(self, cache, stored):
        self.cache, self.stored = cache, stored

    def extend(self, k_BTKH, v_BTKH):
        """Store other keys and values; return those of past tokens as they were stored, and the new ones as given."""
        new = k_BTKH.shape[1]
        everything = [past + 0 for past in self.cache.extend(*self.stored(k_BTKH, v_BTKH))]
        for part, right in zip(everything, (k_BTKH, v_BTKH)):
            part[:, part.shape[1] - new :] = right
        return everything


def _caching(stored):
    """Return the changes that cache the keys and values ``stored(module, x_BTD, p, k_BTKH, v_BTKH)``."""

    def change(module, right):
        def wrong(x_BTD, angle_BTh, mask_BTS, p, *others):
            *config, cache = others
            if cache is not None:
                cache = _StoresOthers(cache, lambda k_BTKH, v_BTKH: stored(module, x_BTD, p, k_BTKH, v_BTKH))
            return right(x_BTD, angle_BTh, mask_BTS, p, *config, cache)

        return wrong

    return in_decoders("grouped_query_attention", change)


def _unrotated(module, x_BTD, p, k_BTKH, v_BTKH):
    return module.einsum("BTD,DKH->BTKH", x_BTD, p.k), v_BTKH


def _in_bfloat16(module, x_BTD, p, k_BTKH, v_BTKH):
    return rounded_to_bfloat16(k_BTKH), rounded_to_bfloat16(v_BTKH)


def _all_in_bfloat16(module, right):
    return lambda self, k_BTKH, v_BTKH: right(self, rounded_to_bfloat16(k_BTKH), rounded_to_bfloat16(v_BTKH))


def _masks(mask):
    """Return the changes of both masks: ``mask(right, prefix_BS, valid_BS, new)`` with ``right`` the right one."""
    plain = in_decoders("prefix_lm", lambda module, right: lambda *given: mask(right, *given))

    def window(module, right):
        def wrong(prefix_BS, valid_BS, new, window):
            return mask(lambda *given: right(*given, window), prefix_BS, valid_BS, new)

        return wrong

    return plain | {"gemma2.sliding_window": window}


def _causal(right, prefix_BS, valid_BS, new):
    return right(prefix_BS, valid_BS, new) & _no_later(_places(valid_BS), new)


def _causal_but_image(right, prefix_BS, valid_BS, new):
    # All image tokens stand in one place, before the text.
    place_BS = (_places(valid_BS) - (image_tokens() or 0)).clip(0)
    return right(prefix_BS, valid_BS, new) & _no_later(place_BS, new)


def _places(valid_BS):
    """Return the places of all tokens, padding included: 1, 2, 3 and so on."""
    return (valid_BS | True).cumsum(1)


def _no_later(place_BS, new):
    """Return which keys stand in the place of a query or before it."""
    return place_BS[:, None, :] <= place_BS[:, place_BS.shape[1] - new :, None]


def _all_valid(right, prefix_BS, valid_BS, new):
    return right(prefix_BS, valid_BS | True, new)


def _chunked(chunk):
    """Return the changes that let no token of the prefix see later chunks of so many tokens; None makes one chunk of
    the image tokens and one of the prompt.
    """

    def mask(right, prefix_BS, valid_BS, new):
        order = _places(valid_BS) - 1
        # A step's token stands after all chunks of the prefix.
        part = order // chunk if chunk else order >= (image_tokens() or 0)
        return right(prefix_BS, valid_BS, new) & _no_later(part, new)

    return _masks(mask)


_RUN = "*/run_blocks.0/"
_ATTENTION = _RUN + "block.0/grouped_query_attention.0/"
_LATER = "the logits of the first token of an answer do not show it: more rows are needed"
MISTAKES = (
    Mistake(
        "rope-interleaved",
        "Neighbouring channels are rotated together, instead of those of the two halves.",
        "the paper's own pairs, and code for checkpoints that were permuted for them",
        _ATTENTION + "q_BTNH",
        (in_decoders("rotate", _interleaved),),
    ),
    Mistake(
        "rope-reversed",
        "Queries and keys are rotated the other way round.",
        "a sign in the wrong half of rotate_half",
        _ATTENTION + "q_BTNH",
        (in_decoders("rotate", _reversed),),
    ),
    Mistake(
        "rope-theta",
        "The slowest rotation follows from another base than 10000, such as 1000000, 500000 or 100000.",
        "defaults of Llama 3 and of Gemma 3",
        _RUN + "angle_BTh",
        tuple(map(_theta, (1e6, 5e5, 1e5))),
    ),
    Mistake(
        "rope-frequencies-bfloat16",
        "The frequencies of the rotation, or its angles, are rounded to bfloat16.",
        "models that are cast as a whole, buffers included (tether issue 155)",
        _RUN + "angle_BTh",
        (in_decoders("angles", _rounded_frequencies), in_decoders("angles", _rounded_angles)),
        counts=True,
    ),
    Mistake(
        "position-skipped",
        "From the first token of the answer on, positions are one too many.",
        "prefixes counted from 1 and answers from 0 (transformers issue 31425)",
        "step.0/run_blocks.0/angle_BTh",
        _shifted(1),
        _LATER,
    ),
    Mistake(
        "position-repeated",
        "The first token of the answer has the position of the prompt's last token, and so on.",
        "transformers 4.41 (issue 31425)",
        "step.0/run_blocks.0/angle_BTh",
        _shifted(-1),
        _LATER,
    ),
    Mistake(
        "keys-cached-unrotated",
        "Keys are cached before they are rotated, and are not rotated when they are read again.",
        "caches that were written for learned positions",
        "step.0/run_blocks.0/block.0/grouped_query_attention.0/k_BSKH",
        (_caching(_unrotated),),
        _LATER,
        counts=True,
    ),
    Mistake(
        "cache-bfloat16",
        "Keys and values are cached as bfloat16.",
        "caches of half the memory, chosen without regard to the model's dtype",
        _ATTENTION + "k_BSKH",
        ({"cache.LayerCache.extend": _all_in_bfloat16}, _caching(_in_bfloat16)),
        counts=True,
    ),
    Mistake(
        "causal-prefix",
        "Image and prompt are causal: each token of them sees only itself and what stands before it.",
        "decoders for text (llama.cpp issue 7553, vLLM issues 5189 and 27938, transformers issue 30993)",
        _RUN + "*_BTS",
        (_masks(_causal),),
    ),
    Mistake(
        "prompt-causal-image-not",
        "The image tokens see one another, and each token of the prompt sees only itself and what stands before it.",
        "PaliGemma 2 on the path of Gemma 3 (llama.cpp issue 22528)",
        _RUN + "*_BTS",
        (_masks(_causal_but_image),),
    ),
    Mistake(
        "padding-visible",
        "Tokens attend to padding.",
        "batches without an attention mask (transformers issue 35855)",
        _RUN + "*_BTS",
        (_masks(_all_valid),),
        "one prompt alone has no padding",
    ),
    Mistake(
        "prefix-chunked",
        "The prefix is read in chunks, and no token sees the chunks after its own.",
        "chunked prefill, and prefills of image and prompt one after the other (optimum-rbln issue 646)",
        _RUN + "*_BTS",
        tuple(map(_chunked, (None, 16, 32, 64, 128, 256, 512, 1024, 2048))),
        "the prefix fits into one chunk",
    ),
)
