"""Every gradient of the model against torch's autograd of the twin: of weights, pixels and named arrays."""

import re

import numpy as np
import pytest
import torch
from learning import apart, autograd, embedded, loss_of, of_random_weights, of_torch, of_weights
from support import CONFIGS

from npgemma import record
from npgemma.backward import gemma, gemma2, paligemma, siglip
from npgemma.backward.answers import gradients
from npgemma.backward.names import forward_name
from npgemma.params import declared
from npgemma.porting.bounds import GRADIENTS

SHARED = "two key/value heads"
# How many named arrays are compared: one that a function hands on counts where it is made and where it is taken.
COMPARED = {"embedded": 198, "Gemma 2": 147, "three images": 140}


def case(name, dtype):
    small = (SHARED, dtype, 3) if name == "three images" else (name, dtype)
    return embedded(dtype) if name == "embedded" else of_random_weights(*small)


@pytest.mark.parametrize("name", [*CONFIGS, "embedded", "three images"])
def test_every_weight_and_pixel(name, dtype):
    p, config, batch = case(name, dtype)
    found, dpixels, dp = gradients(batch, p, config)
    expected, of_pixels, by_name = autograd(p, config, batch)
    assert found == pytest.approx(expected, rel=GRADIENTS[dtype])
    assert dpixels.dtype == of_pixels.dtype
    assert apart(dpixels, of_pixels) < GRADIENTS[dtype]
    found = of_weights(dp, by_name)
    assert list(found) == [leaf.name for leaf in declared(config)]
    assert max(found.values()) < GRADIENTS[dtype], max(found, key=found.get)


# Gradients of values that have no name in the forward pass; central differences hold the functions that make them.
UNNAMED = {
    "encode/patch_BTCyx", "block/mid_normed_BTD", "block/normed_BTD", "mlp/before_BTF", "geglu/up_BTF",
    "logits/read_VD", "embed_tokens/embedding_VD", "unembed/embedding_VD", "unembed/product_BTV", "logits/written_VD",
}  # fmt: skip


@pytest.mark.parametrize("name", COMPARED)
def test_every_named_array(name):
    p, config, batch = case(name, "float64")
    found, named, pixels = {}, {}, torch.from_numpy(np.array(batch.pixels)).requires_grad_()
    with record(sink=lambda name, value: found.__setitem__(forward_name(name, config), value)):
        gradients(batch, p, config)

    def keep(name, value, statement):
        if value.requires_grad:
            value.retain_grad()
            named[name] = value

    with record(sink=lambda name, value: None, watch=keep):
        loss_of(of_torch(p), batch, config, pixels).backward()
    without = {re.sub(r".*?(\w+)\.\d+(/\w+)$", r"\1\2", name) for name in found if name and name not in named}
    assert without <= UNNAMED
    compared = {name: apart(found[name], named[name].grad.numpy()) for name in found if name in named}
    assert len(compared) == COMPARED[name]
    assert max(compared.values()) < GRADIENTS["float64"], max(compared, key=compared.get)


def one_query_head(right):
    def attend_backward(dmixed_BTNH, q_BTNH, k_BSKH, *others):
        alone = np.array(dmixed_BTNH)
        alone[:, :, np.arange(alone.shape[2]) % (alone.shape[2] // k_BSKH.shape[2]) > 0] = 0
        return right(dmixed_BTNH, q_BTNH, k_BSKH, *others)[0], *right(alone, q_BTNH, k_BSKH, *others)[1:]

    return attend_backward


def loss_on(counting, factor=lambda answer: 1):
    return lambda right: lambda dloss, logit, ids, answer: right(dloss * factor(answer), logit, ids, counting(answer))


# What is wrong: the file and function that it stands in, and what is made of the right one.
LOSS = paligemma, "next_token_loss_backward"
WRONG = {
    "not summed over G": (gemma, "attend_backward", one_query_head),
    "not summed over G, Gemma 2": (gemma2, "attend_backward", one_query_head),
    "table from reading alone": (gemma, "unembed_backward", lambda right: lambda *g: (right(*g)[0], 0 * right(*g)[1])),
    "table from writing alone": (gemma, "embed_tokens_backward", lambda right: lambda *given: 0 * right(*given)),
    "1 + scale forgotten": (gemma, "rms_norm_backward", lambda right: lambda d, x, s, e: right(d, x, s - 1, e)),
    "loss on the prompt too": (*LOSS, loss_on(lambda answer: np.flip(np.flip(answer, 1).cumsum(1), 1) > 0)),
    "no mask in the loss": (*LOSS, loss_on(np.ones_like)),
    "divided by the batch": (*LOSS, loss_on(np.array, lambda answer: answer[:, 1:].sum() / len(answer))),
    "no shortcut": (siglip, "block_backward", lambda right: lambda d, *g: (right(d, *g)[0] - d, right(d, *g)[1])),
    "not rotated back": (gemma, "rotate_backward", lambda right: lambda d, x, angle: right(d, x, -angle)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_is_seen(wrong, monkeypatch):
    """Each of these makes gradients that look right, and models that learn something."""
    p, config, batch = of_random_weights("Gemma 2" if "Gemma 2" in wrong else SHARED, "float64")
    _, _, expected = autograd(p, config, batch)
    file, name, mistake = WRONG[wrong]
    monkeypatch.setattr(file, name, mistake(getattr(file, name)))
    _, _, dp = gradients(batch, p, config)
    assert max(of_weights(dp, expected).values()) > 1e-2
