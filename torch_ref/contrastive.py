"""The twin of ``npgemma/contrastive.py``, which explains what both do."""

import torch


def sigmoid_loss(image_BD, text_BD, scale, bias):
    """Ask of every pair of image and caption, by itself: do they belong together?"""
    logit_BB = scale * (image_BD @ text_BD.T) + bias
    label_BB = 2 * torch.eye(len(image_BD), dtype=image_BD.dtype, device=image_BD.device) - 1
    # log sigmoid(x) = -log(1 + exp(-x)), written so that exp never overflows.
    loss_BB = torch.logaddexp(torch.zeros_like(logit_BB), -label_BB * logit_BB)
    return loss_BB.sum() / len(image_BD)


def softmax_loss(image_BD, text_BD, scale):
    """Ask of every image: which of the captions is yours? And of every caption: which image? (CLIP's loss.)"""
    logit_BB = scale * (image_BD @ text_BD.T)
    caption_B = torch.logsumexp(logit_BB, dim=1) - torch.diagonal(logit_BB)
    image_B = torch.logsumexp(logit_BB, dim=0) - torch.diagonal(logit_BB)
    return (caption_B.mean() + image_B.mean()) / 2
