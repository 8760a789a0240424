"""The twin of ``npgemma/generate.py``, which explains what both do."""

import torch

from torch_ref import paligemma
from torch_ref.ops import softmax


def generate(image_BPD, ids_BT, valid_BT, p, config, choose, max_new_tokens, make_cache, step):
    """Yield the answer's tokens, one for each row at a time."""
    prompt_tokens = image_BPD.shape[1] + ids_BT.shape[1]
    most = min(max_new_tokens, config.text.context_length - prompt_tokens)
    if most < 1:
        return
    # The last token is never fed back, so it needs no place.
    cache = make_cache(config.text, len(ids_BT), prompt_tokens + most - 1, image_BPD)
    valid_BS = paligemma.with_image(valid_BT, image_BPD)
    running_B = torch.ones(len(ids_BT), dtype=torch.bool, device=ids_BT.device)
    logit_BV = paligemma.prefill(image_BPD, ids_BT, valid_BT, p, config, cache)
    for remaining in range(most, 0, -1):
        id_B = torch.where(running_B, choose(logit_BV), config.pad_token)
        yield id_B
        for eos_token in config.eos_tokens:
            running_B = running_B & (id_B != eos_token)
        if remaining == 1 or not running_B.any():
            return
        valid_BS = torch.cat([valid_BS, running_B[:, None]], dim=1)
        logit_BV = step(id_B[:, None], valid_BS, p, config, cache)


def greedy(logit_BV):
    """Choose the most probable token; of several, the one with the lowest id."""
    return logit_BV.argmax(dim=-1)


def sample(logit_BV, uniform_B, temperature=1.0, top_k=None, top_p=1.0):
    """Draw a token by its probability, with the improbable ones left out."""
    # R is the rank of a token, from the most probable down: all V of them, or top_k.
    order_BR = torch.argsort(-logit_BV, dim=-1, stable=True)[:, :top_k]
    # float64: sums over a large vocabulary decide here.
    sorted_BR = torch.take_along_dim(logit_BV, order_BR, dim=-1).double()
    probability_BR = softmax((sorted_BR - sorted_BR[:, :1]) / temperature)
    before_BR = probability_BR.cumsum(dim=-1) - probability_BR
    kept_BR = torch.where(before_BR < top_p, probability_BR, 0.0)
    total_BR = kept_BR.cumsum(dim=-1)
    # How many pieces of the line end before the random number: the rank of the token drawn.
    index = (total_BR <= uniform_B[:, None] * total_BR[:, -1:]).sum(dim=-1, keepdim=True)
    return torch.take_along_dim(order_BR, index, dim=-1)[:, 0]
