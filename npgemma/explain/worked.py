"""What heads, the strongest MLP channels and rotary pairs computed while each answer token was chosen."""

import functools
import importlib

import numpy as np

from npgemma.explain.choices import most_probable
from npgemma.explain.lens import logits_of
from npgemma.machinery.backend import to_numpy

# Of an answer with more heads than this, all tokens together, only one a token is kept.
MOST_HEADS = 500


def worked(inference, found, names, pack):
    """Return, for each answer token, ``layer`` and ``head`` that look most at its object, and ``heads``: by names such
    as 2.3 what that head computed, with the MLP channel of its layer that has the largest product, and the rotary pair
    of its query and of the key with the highest score.
    """
    every = list(np.ndindex(inference.layers, inference.model.config.text.query_heads))
    tokens = []
    for token in range(inference.tokens):
        best = _head(inference, token, found)
        kept = every if len(every) * inference.tokens <= MOST_HEADS else [best]
        channels = {layer: _channel(inference, token, layer, names) for layer, _ in kept}
        heads = {f"{i}.{n}": _worked(inference, token, i, n, pack) | channels[i] for i, n in kept}
        tokens.append({"layer": best[0], "head": best[1], "heads": heads})
    return tokens


def _head(inference, token, found):
    """Return layer and head that look most at the token's object; at one patch, if it has no box."""
    weight_LNP = inference.attention(token)[..., : inference.patches]
    shares = [each["shares"] for each in found if each["box"] and each["tokens"][0] <= token <= each["tokens"][1]]
    look_LN = weight_LNP @ shares[0] if shares else weight_LNP.max(axis=-1)
    return tuple(map(int, np.unravel_index(look_LN.argmax(), look_LN.shape)))


def _worked(inference, token, layer, head, pack):
    """Return what one head computed."""
    part, block = "grouped_query_attention.0/", functools.partial(inference.block, token, layer)
    names = "q_BTNH", "rotate.0/x_BTNH", "attend.0/mixed_BTNH"
    query_H, plain_H, mixed_H = (block(part + name)[0, -1, head] for name in names)
    scores_NS = block(part + "attend.0/masked_BKGTS")[0, ..., -1, :].reshape(-1, inference.prefix + token)
    top = int(scores_NS[head].argmax())
    key_KH, value_KH = (inference.past(token, layer, name)[top] for name in ("k_BTKH", "v_BTKH"))
    shared = head * len(key_KH) // len(scores_NS)
    arrays = {"query": query_H, "key": key_KH[shared], "scores": scores_NS[head], "value": value_KH[shared]}
    only_NH = (np.arange(len(scores_NS)) == head)[:, None] * mixed_H
    added_D = _product(inference, "BTNH,NHD->BTD", only_NH, inference.model.params.text.blocks[layer].attn.o)
    arrays |= {"mixed": mixed_H, "added": added_D}
    pair, speed = _pair(inference, plain_H, key_KH[shared])
    back = np.exp(-1j * top * speed) * complex(*key_KH[shared][pair])
    arrays |= {"plain": plain_H[pair], "plain_key": np.array([back.real, back.imag])}
    before = float(np.linalg.norm(block("x_BTD")[0, -1]))
    facts = {"layer": layer, "head": head, "pair": pair, "speed": speed, "before": before}
    return facts | {name: pack.floats(array) for name, array in arrays.items()}


def _pair(inference, query_H, key_H):
    """Return channels and speed of the pair with the largest product of lengths that comes round within the prefix."""
    half = len(query_H) // 2
    speed_h = inference.model.config.text.rope_theta ** (-np.arange(half) / half)
    length_h = np.prod([np.hypot(x_H[:half], x_H[half:]) for x_H in (query_H, key_H)], axis=0)
    pair = int(np.where(speed_h * inference.prefix >= 2 * np.pi, length_h, -1).argmax())
    return [pair, pair + half], float(speed_h[pair])


def _channel(inference, token, layer, names):
    """Return the MLP channel of a layer with the largest product, and the tokens that its row of ``down`` raises."""
    hidden_F, gate_F = (inference.block(token, layer, f"geglu.0/{name}")[0, -1] for name in ("hidden_BTF", "gate_BTF"))
    channel = int(np.abs(hidden_F).argmax())
    gate, product = float(gate_F[channel]), float(hidden_F[channel])
    only_F = np.where(np.arange(len(hidden_F)) == channel, hidden_F, 0)
    added_D = _product(inference, "BTF,FD->BTD", only_F, inference.model.params.text.blocks[layer].mlp.down)
    raised = names.add(most_probable(logits_of(inference, added_D[None]), 3))
    return {"channel": channel, "gate": gate, "up": product / gate, "product": product, "raised": raised}


def _product(inference, formula, left, weight):
    """Multiply one token's numbers by a weight, as the decoder does, whatever dtype holds it."""
    model = inference.model
    decoder = importlib.import_module(f"{inference.package}.paligemma").decoder_of(model.config)
    with model.backend.session():
        return to_numpy(decoder.einsum(formula, model.backend.to_activation(left[None, None]), weight))[0, 0]
