"""PaliGemma: maps an image and a prompt to the logits of the next token. Here the parts are joined.

Sequence: P tokens of one image or several, then text: ``<bos>`` (it begins every text), prompt, newline (it ends the
prompt), answer so far. Image and prompt are the prefix, whose tokens all see each other; the answer only looks back.
Paper: Beyer et al., arXiv 2407.07726; official code: ``big_vision/models/proj/paligemma/paligemma.py``.

*Next:* ``cache.py``. *Skip on a first reading:* `encode_images`.
"""

import numpy as np

from npgemma import gemma, gemma2, siglip
from npgemma.config import Gemma2Config
from npgemma.projector import project


def encode_image(pixels_BYXC, p, config):
    """Encode images as tokens of the decoder's width.

    Parameters
    ----------
    pixels_BYXC : array
        From -1 to 1, as `npgemma.image.load_pixels` makes them.
    p : Params
        All weights, as a tree (`npgemma.params`): ``p.text.blocks[0].attn.q`` is one of them.
    config : Config

    Returns
    -------
    image_BPD : array
    """
    features_BPE = siglip.encode(pixels_BYXC, p.vision, config.vision)
    image_BPD = project(features_BPE, p.projector)
    return image_BPD


def encode_images(pixels_BIYXC, p, config):
    """Encode several images of each prompt: their tokens follow one another, in the order of the images.

    Parameters
    ----------
    pixels_BIYXC : array
        As for `encode_image`, I images for each prompt.
    p : Params
    config : Config

    Returns
    -------
    image_BPD : array
        All P tokens of a prompt's images. Nothing marks where one image ends: each patch has its position in the
        vision tower, and in the decoder's sequence.
    """
    B, images, Y, X, C = pixels_BIYXC.shape
    # The vision tower knows nothing of prompts: every image is a row of its own.
    each = encode_image(pixels_BIYXC.reshape(B * images, Y, X, C), p, config)
    image_BPD = each.reshape(B, images * each.shape[1], each.shape[2])
    return image_BPD


def decoder_of(config):
    """Return the decoder: ``gemma.py`` in PaliGemma 1, ``gemma2.py`` in PaliGemma 2; both have the same functions."""
    return gemma2 if isinstance(config.text, Gemma2Config) else gemma


def with_image(flag_BT, image_BPD):
    """Prepend True for every image token to a per-text-token flag: the image is all real and all prefix.

    Parameters
    ----------
    flag_BT : bool array
        Of the text tokens: valid, or prefix.
    image_BPD : array

    Returns
    -------
    flag_BS : bool array
        Of all tokens.
    """
    image_BP = np.ones(image_BPD.shape[:2], dtype=bool)
    flag_BS = np.concatenate([image_BP, flag_BT], axis=1)
    return flag_BS


def logits(image_BPD, ids_BT, prefix_BT, valid_BT, p, config):
    """Return the logits of the next token at every position, in one pass and without a cache.

    Parameters
    ----------
    image_BPD : array
        From `encode_image`.
    ids_BT : int array
        Text tokens: ``<bos>``, prompt, newline, answer.
    prefix_BT : bool array
        Text tokens of the prefix.
    valid_BT : bool array
        Text tokens that are not padding.
    p : Params
    config : Config

    Returns
    -------
    logit_BSV : array
        For every position, image tokens first.
    """
    decoder = decoder_of(config)
    prefix_BS, valid_BS = with_image(prefix_BT, image_BPD), with_image(valid_BT, image_BPD)
    x_BSD = np.concatenate([image_BPD, decoder.embed_tokens(ids_BT, p.text)], axis=1)
    final_BSD = decoder.run_blocks(x_BSD, prefix_BS, valid_BS, p.text, config.text)
    logit_BSV = decoder.unembed(final_BSD, p.text, config.text)
    return logit_BSV


def prefill(image_BPD, ids_BT, valid_BT, p, config, cache):
    """Read image and prompt into an empty cache; return the logits of the answer's first token.

    Parameters
    ----------
    image_BPD : array
        From `encode_image`.
    ids_BT : int array
        ``<bos>``, prompt, newline; shorter rows are padded on the left, so that all rows end together.
    valid_BT : bool array
        Text tokens that are not padding.
    p : Params
    config : Config
    cache : KVCache
        Empty.

    Returns
    -------
    logit_BV : array
        Only the last position's: no other is needed, and those of all positions would be a fifth of the 3B model's
        work.
    """
    decoder = decoder_of(config)
    valid_BS = with_image(valid_BT, image_BPD)
    x_BSD = np.concatenate([image_BPD, decoder.embed_tokens(ids_BT, p.text)], axis=1)
    # Every real token so far belongs to the prefix: the two flags are the same.
    final_BSD = decoder.run_blocks(x_BSD, valid_BS, valid_BS, p.text, config.text, cache)
    logit_BV = decoder.unembed(final_BSD[:, -1:], p.text, config.text)[:, 0]
    return logit_BV


def step(ids_BT, valid_BS, p, config, cache):
    """Take one more token of each answer; return the logits of the one after it.

    The first token of an answer has the position that follows the prompt's last: the number of real tokens before it.

    Parameters
    ----------
    ids_BT : int array
        The newest tokens; T = 1.
    valid_BS : bool array
        Real tokens among all so far, these included.
    p : Params
    config : Config
    cache : KVCache
        Holds all earlier tokens; extended by these.

    Returns
    -------
    logit_BV : array
    """
    decoder = decoder_of(config)
    x_BTD = decoder.embed_tokens(ids_BT, p.text)
    # A token of the answer only looks back, on the prefix as on the answer: who belongs to which no longer matters.
    final_BTD = decoder.run_blocks(x_BTD, np.zeros_like(valid_BS), valid_BS, p.text, config.text, cache)
    logit_BV = decoder.unembed(final_BTD, p.text, config.text)[:, 0]
    return logit_BV
