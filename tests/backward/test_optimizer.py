"""Five steps of each optimizer against torch's, each with its own gradients; the schedule; what decays."""

import numpy as np
import pytest
import torch
from learning import apart, embedded, loss_of, of_random_weights, of_torch
from support import CONFIGS

from npgemma.backward.answers import gradients
from npgemma.backward.optimizer import adamw, decay_of_recipe, no_moments, rate_at, sgd
from npgemma.params import leaves

# Relative L2 of the weights after the steps; the largest seen, of the embedded model, are 6.8e-17 and 8.7e-14.
BOUND = {"SGD": 2e-16, "AdamW": 3e-13}


@pytest.mark.parametrize("kind", BOUND)
@pytest.mark.parametrize("name", [*CONFIGS, pytest.param("embedded", marks=pytest.mark.slow)])
def test_five_steps(name, kind):
    before, config, batch = embedded("float64") if name == "embedded" else of_random_weights(name, "float64")
    decay, p, moments, tensors = decay_of_recipe(config, 0.3), before, no_moments(before), of_torch(before)
    decays = {name: decay.get(name, 0.0) if kind == "AdamW" else 0.0 for name, _, _ in leaves(tensors)}
    groups = [{"params": [weight], "weight_decay": decays[name]} for name, _, weight in leaves(tensors)]
    theirs = getattr(torch.optim, kind)(groups, lr=1.0, **({"betas": (0.9, 0.98)} if kind == "AdamW" else {}))
    for step in range(1, 6):
        rate, (_, _, dp) = rate_at(step, 5, 1e-3, warmup=0.4), gradients(batch, p, config)
        if kind == "SGD":
            p = sgd(p, dp, rate)
        else:
            p, moments = adamw(p, dp, moments, rate, (0.9, 0.98), decay=decay)
        theirs.zero_grad()
        loss_of(tensors, batch, config).backward()
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
    for (name, _, weight), (_, _, old), (_, _, expected) in zip(leaves(p), leaves(before), leaves(tensors)):
        if not name.endswith("k_bias"):  # rounding alone moves it
            assert np.abs(weight - old).max() > 0, name
            assert apart(weight, expected.detach().numpy()) < BOUND[kind], name


def test_matrices_of_tower_and_projector_decay():
    names = set(decay_of_recipe(CONFIGS["two key/value heads"], 0.1))
    assert {"vision.patch_embedding", "vision.blocks.1.mlp.up", "projector.linear"} < names
    assert not [name for name in names if "text" in name or "bias" in name or "norm" in name or "position" in name]


def test_the_rate_rises_and_falls():
    rates = np.array([rate_at(step, 40, 0.5, warmup=0.1) for step in range(1, 41)])
    assert (rates.argmax(), rates.max(), rates[-1], rate_at(1, 1, 0.5)) == (3, 0.5, pytest.approx(0), 0.5)
    assert (np.diff(rates[:4]) > 0).all()
    assert (np.diff(rates[3:]) < 0).all()
