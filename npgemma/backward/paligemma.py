"""PaliGemma backwards: from the loss of an answer to the gradient of every weight. Here the parts are joined.

*Next:* ``backward/optimizer.py``. *Skip on a first reading:* `encode_images_backward`.
"""

import dataclasses

import numpy as np

from npgemma import paligemma, siglip
from npgemma.backward import gemma, gemma2
from npgemma.backward.loss import next_token_loss_backward
from npgemma.backward.projector import project_backward
from npgemma.backward.siglip import encode_backward
from npgemma.loss import next_token_loss
from npgemma.params import Params
from npgemma.projector import project


def encode_image_backward(dimage_BPD, pixels_BYXC, p, config, features_BPE=None):
    """Return the gradients of the pixels and of the weights of vision tower and projector.

    `loss_and_gradients` hands over the features that it has, so that the tower does not run again.
    """
    if features_BPE is None:
        features_BPE = siglip.encode(pixels_BYXC, p.vision, config.vision)
    dfeatures_BPE, dprojector = project_backward(dimage_BPD, features_BPE, p.projector)
    dpixels_BYXC, dvision = encode_backward(dfeatures_BPE, pixels_BYXC, p.vision, config.vision)
    return dpixels_BYXC, Params(vision=dvision, projector=dprojector, text=None)


def encode_images_backward(dimage_BPD, pixels_BIYXC, p, config, features=None):
    """Return the same of several images of a prompt: the tower, used once for each, sums over all of them."""
    B, images, Y, X, C = pixels_BIYXC.shape
    dimage = dimage_BPD.reshape(B * images, -1, dimage_BPD.shape[2])
    pixels = pixels_BIYXC.reshape(B * images, Y, X, C)
    dpixels, dp = encode_image_backward(dimage, pixels, p, config, features)
    dpixels_BIYXC = dpixels.reshape(B, images, Y, X, C)
    return dpixels_BIYXC, dp


def logits_backward(dlogit_BSV, image_BPD, ids_BT, prefix_BT, valid_BT, p, config, final_BSD=None):
    """Return the gradients of the image tokens and of the decoder's weights.

    Image tokens and text stood side by side in one array, so its gradient is cut where they met. The table is used
    twice, to read and to write: its two gradients add up. The loss keeps ``final_BSD``.
    """
    decoder, P = gemma2 if paligemma.decoder_of(config) is paligemma.gemma2 else gemma, image_BPD.shape[1]
    x_BSD, *flags = joined(image_BPD, ids_BT, prefix_BT, valid_BT, p, config)
    if final_BSD is None:
        final_BSD = paligemma.decoder_of(config).run_blocks(x_BSD, *flags, p.text, config.text)
    dfinal_BSD, dwritten_VD = decoder.unembed_backward(dlogit_BSV, final_BSD, p.text, config.text)
    dx_BSD, dtext = decoder.run_blocks_backward(dfinal_BSD, x_BSD, *flags, p.text, config.text)
    dread_VD = decoder.embed_tokens_backward(dx_BSD[:, P:], ids_BT, p.text)
    dimage_BPD, dtext = dx_BSD[:, :P], dataclasses.replace(dtext, embedding=dread_VD + dwritten_VD)
    return dimage_BPD, Params(vision=None, projector=None, text=dtext)


def joined(image_BPD, ids_BT, prefix_BT, valid_BT, p, config):
    """Return tokens and flags as `npgemma.paligemma.logits` joins them for the blocks."""
    text_BTD = paligemma.decoder_of(config).embed_tokens(ids_BT, p.text)
    flags = paligemma.with_image(prefix_BT, image_BPD), paligemma.with_image(valid_BT, image_BPD)
    return np.concatenate([image_BPD, text_BTD], axis=1), *flags


def loss_and_gradients(pixels, ids_BT, prefix_BT, valid_BT, answer_BT, p, config):
    """Return the loss of some answers, and its gradients in pixels and weights.

    ``pixels`` are of one image of each prompt (B, Y, X, C), or of several (B, I, Y, X, C); ``ids_BT`` are ``<bos>``,
    prompt, newline, answer and ``<eos>``. The loss is the mean over the tokens of all answers, as Hugging Face's;
    big_vision's is the mean over each answer's tokens, then over the answers.
    """
    decoder, text = paligemma.decoder_of(config), (ids_BT, prefix_BT, valid_BT, p, config)
    features = siglip.encode(pixels.reshape(-1, *pixels.shape[-3:]), p.vision, config.vision)
    image_BPD = project(features, p.projector).reshape(len(ids_BT), -1, config.text.width)
    final_BSD = decoder.run_blocks(*joined(image_BPD, *text), p.text, config.text)
    P = image_BPD.shape[1]
    logit_BTV = decoder.unembed(final_BSD[:, P:], p.text, config.text)
    dlogit_BTV = next_token_loss_backward(1.0, logit_BTV, ids_BT, answer_BT)
    dlogit_BSV = np.pad(dlogit_BTV, ((0, 0), (P, 0), (0, 0)))  # image tokens predict nothing
    dimage_BPD, ddecoder = logits_backward(dlogit_BSV, image_BPD, *text, final_BSD)
    backward = encode_images_backward if pixels.ndim == 5 else encode_image_backward
    dpixels, dencoder = backward(dimage_BPD, pixels, p, config, features)
    return next_token_loss(logit_BTV, ids_BT, answer_BT), dpixels, dataclasses.replace(dencoder, text=ddecoder.text)
