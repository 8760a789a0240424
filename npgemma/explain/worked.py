"""What one attention head, one MLP channel and one rotary pair computed while each answer token was chosen."""

import functools
import importlib

import numpy as np

from npgemma.machinery.backend import to_numpy


def worked(inference, found, pack):
    """Return, for each answer token, what was computed by the head that looks most at its object, by the MLP channel of
    that layer with the largest product, and by the rotation of the query's pair with the largest values.
    """
    return [_token(inference, token, *_head(inference, token, found), pack) for token in range(inference.tokens)]


def _head(inference, token, found):
    """Return layer and head that look most at the token's object; at one patch, if it has no box."""
    weight_LNP = inference.attention(token)[..., : inference.patches]
    shares = [each["shares"] for each in found if each["box"] and each["tokens"][0] <= token <= each["tokens"][1]]
    look_LN = weight_LNP @ shares[0] if shares else weight_LNP.max(axis=-1)
    return map(int, np.unravel_index(look_LN.argmax(), look_LN.shape))


def _token(inference, token, layer, head, pack):
    """Return what one head, and the MLP of its layer, computed."""
    part, block = "grouped_query_attention.0/", functools.partial(inference.block, token, layer)
    query_H, plain_H, mixed_H = (
        block(part + name)[0, -1, head] for name in ("q_BTNH", "rotate.0/x_BTNH", "attend.0/mixed_BTNH")
    )
    scores_NS = block(part + "attend.0/masked_BKGTS")[0, ..., -1, :].reshape(-1, inference.prefix + token)
    hidden_F, gate_F = (block(f"geglu.0/{name}")[0, -1] for name in ("hidden_BTF", "gate_BTF"))
    channel, half = int(np.abs(hidden_F).argmax()), len(query_H) // 2
    pair = int(np.hypot(plain_H[:half], plain_H[half:]).argmax())
    added_D = _added(inference, layer, head, mixed_H)
    arrays = {"query": query_H, "scores": scores_NS[head], "mixed": mixed_H, "added": added_D}
    arrays |= {"plain": plain_H[pair::half], "turned": query_H[pair::half]}
    speed = inference.model.config.text.rope_theta ** (-pair / half)
    numbers = {"before": np.linalg.norm(block("x_BTD")[0, -1]), "speed": speed, "gate": gate_F[channel]}
    numbers |= {"product": hidden_F[channel], "up": hidden_F[channel] / gate_F[channel]}
    facts = {"layer": layer, "head": head, "channel": channel, "pair": [pair, pair + half]}
    facts |= {name: float(number) for name, number in numbers.items()}
    return facts | {name: pack.floats(array) for name, array in arrays.items()}


def _added(inference, layer, head, mixed_H):
    """Return what one head adds to the residual stream: its mix of values through its part of the output matrix."""
    model = inference.model
    decoder = importlib.import_module(f"{inference.package}.paligemma").decoder_of(model.config)
    only_BTNH = np.zeros((1, 1, model.config.text.query_heads, len(mixed_H)), mixed_H.dtype)
    only_BTNH[..., head, :] = mixed_H
    with model.backend.session():
        mixed_BTNH = model.backend.to_activation(only_BTNH)
        return to_numpy(decoder.einsum("BTNH,NHD->BTD", mixed_BTNH, model.params.text.blocks[layer].attn.o))[0, 0]
