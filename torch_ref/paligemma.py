"""The twin of ``npgemma/paligemma.py``, which explains what both do."""

import torch

from npgemma.config import Gemma2Config
from torch_ref import gemma, gemma2, siglip
from torch_ref.projector import project


def encode_image(pixels_BYXC, p, config):
    """Encode images as tokens of the decoder's width."""
    features_BPE = siglip.encode(pixels_BYXC, p.vision, config.vision)
    image_BPD = project(features_BPE, p.projector)
    return image_BPD


def encode_images(pixels_BIYXC, p, config):
    """Encode several images of each prompt: their tokens follow one another, in the order of the images."""
    B, images, Y, X, C = pixels_BIYXC.shape
    # The vision tower knows nothing of prompts: every image is a row of its own.
    each = encode_image(pixels_BIYXC.reshape(B * images, Y, X, C), p, config)
    image_BPD = each.reshape(B, images * each.shape[1], each.shape[2])
    return image_BPD


def decoder_of(config):
    """Return the decoder: ``gemma.py`` in PaliGemma 1, ``gemma2.py`` in PaliGemma 2; both have the same functions."""
    return gemma2 if isinstance(config.text, Gemma2Config) else gemma


def with_image(flag_BT, image_BPD):
    """Prepend True for every image token to a per-text-token flag: the image is all real and all prefix."""
    image_BP = torch.ones(image_BPD.shape[:2], dtype=torch.bool, device=image_BPD.device)
    flag_BS = torch.cat([image_BP, flag_BT], dim=1)
    return flag_BS


def logits(image_BPD, ids_BT, prefix_BT, valid_BT, p, config):
    """Return the logits of the next token at every position, in one pass and without a cache."""
    decoder = decoder_of(config)
    prefix_BS, valid_BS = with_image(prefix_BT, image_BPD), with_image(valid_BT, image_BPD)
    x_BSD = torch.cat([image_BPD, decoder.embed_tokens(ids_BT, p.text)], dim=1)
    final_BSD = decoder.run_blocks(x_BSD, prefix_BS, valid_BS, p.text, config.text)
    logit_BSV = decoder.unembed(final_BSD, p.text, config.text)
    return logit_BSV


def prefill(image_BPD, ids_BT, valid_BT, p, config, cache):
    """Read image and prompt into an empty cache; return the logits of the answer's first token."""
    decoder = decoder_of(config)
    valid_BS = with_image(valid_BT, image_BPD)
    x_BSD = torch.cat([image_BPD, decoder.embed_tokens(ids_BT, p.text)], dim=1)
    # Every real token so far belongs to the prefix: the two flags are the same.
    final_BSD = decoder.run_blocks(x_BSD, valid_BS, valid_BS, p.text, config.text, cache)
    logit_BV = decoder.unembed(final_BSD[:, -1:], p.text, config.text)[:, 0]
    return logit_BV


def step(ids_BT, valid_BS, p, config, cache):
    """Take one more token of each answer; return the logits of the one after it."""
    decoder = decoder_of(config)
    x_BTD = decoder.embed_tokens(ids_BT, p.text)
    # A token of the answer only looks back, on the prefix as on the answer: who belongs to which no longer matters.
    final_BTD = decoder.run_blocks(x_BTD, torch.zeros_like(valid_BS), valid_BS, p.text, config.text, cache)
    logit_BV = decoder.unembed(final_BTD, p.text, config.text)[:, 0]
    return logit_BV
