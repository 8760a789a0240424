"""The gradients of the twin, which torch finds by itself: what those of ``npgemma/backward`` are proved against."""

import torch

from npgemma.params import map_leaves
from torch_ref import loss, paligemma


def loss_of(pixels, ids_BT, prefix_BT, valid_BT, answer_BT, p, config):
    """Return the loss of some answers, which torch can differentiate."""
    encode = paligemma.encode_image if pixels.ndim == 4 else paligemma.encode_images
    image_BPD = encode(pixels, p, config)
    logit_BSV = paligemma.logits(image_BPD, ids_BT, prefix_BT, valid_BT, p, config)
    return loss.next_token_loss(logit_BSV[:, image_BPD.shape[1] :], ids_BT, answer_BT)


def loss_and_gradients(pixels, ids_BT, prefix_BT, valid_BT, answer_BT, p, config):
    """Return what `npgemma.backward.paligemma.loss_and_gradients` does."""
    with torch.enable_grad():
        seen, weights = pixels.detach().requires_grad_(), map_leaves(lambda w: w.detach().requires_grad_(), p)
        loss_of_all = loss_of(seen, ids_BT, prefix_BT, valid_BT, answer_BT, weights, config)
        loss_of_all.backward()
    return loss_of_all.detach(), seen.grad, map_leaves(lambda weight: weight.grad, weights)
