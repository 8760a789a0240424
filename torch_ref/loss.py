"""The twin of ``npgemma/loss.py``, which explains what both do."""

import torch


def next_token_loss(logit_BTV, id_BT, answer_BT):
    """Cross-entropy of the answer's tokens: how surprised is the model by each, given all tokens before it?"""
    before = logit_BTV[:, :-1]
    # What is subtracted cancels out, and keeps exp from overflowing.
    shifted = before - before.amax(dim=-1, keepdim=True)
    chosen = torch.take_along_dim(shifted, id_BT[:, 1:, None], dim=-1)[..., 0]
    loss = torch.log(torch.exp(shifted).sum(dim=-1)) - chosen
    return loss[answer_BT[:, 1:]].mean()
