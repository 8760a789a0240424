"""The whole model: both backends array by array, the cache against one pass, padded batches against single rows."""

import numpy as np
import pytest
from support import CONFIGS, assert_close, inputs, models, on_numpy, on_torch

import npgemma
import torch_ref
from npgemma.fast.bfloat16 import BFloat16Weight, narrow, widen
from npgemma.machinery.backend import to_numpy
from npgemma.params import build, leaves, map_leaves
from npgemma.porting.backends import Comparison
from npgemma.porting.bounds import BOUNDS, DEVICE_FACTOR
from npgemma.porting.difference import relative_l2
from torch_ref.backend import to_torch


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def test_every_named_array_of_both_backends(config, dtype, device):
    model, twin = models(config, dtype, device=device)
    arguments = inputs(config, dtype)
    with npgemma.record() as expected:
        model.logits(*arguments)
    comparison = Comparison(expected, BOUNDS[dtype] * DEVICE_FACTOR[device])
    with npgemma.record(sink=comparison.sink):
        twin.logits(*arguments)
    assert comparison.passed, comparison.report([], [])


def test_no_activation_changes_dtype(config, dtype):
    model, _ = models(config, dtype)
    with npgemma.record() as trace:
        model.logits(*inputs(config, dtype))
    for name, array in trace.items():
        angle = name.endswith("angle_BTh")
        assert array.dtype.kind in "bi" or array.dtype == ("float64" if angle else dtype), f"{name}: {array.dtype}"


def test_bfloat16_twin_is_near_float32_on_the_same_weights(config, device):
    """Two right bfloat16 programs differ by about a percent; a wrong one by far more."""
    model, _ = models(config)
    rounded = map_leaves(narrow, model.params)
    wide = on_numpy(map_leaves(widen, rounded), config)
    twin = on_torch(to_torch(map_leaves(BFloat16Weight, rounded), "bfloat16", device), config, "bfloat16", device)
    arguments = inputs(config)
    expected, found = wide.logits(*arguments), to_numpy(twin.logits(*arguments))
    assert 1e-4 < relative_l2(expected, found) < BOUNDS["bfloat16"]


def test_bfloat16_weights_in_numpy_are_exactly_their_float32_values(config):
    model, _ = models(config)
    rounded = map_leaves(narrow, model.params)
    wide, held = map_leaves(widen, rounded), {name: BFloat16Weight(array) for name, _, array in leaves(rounded)}
    values = {name: array for name, _, array in leaves(wide)}
    mixed = build(config, lambda leaf: (held if leaf.kind == "weight" else values)[leaf.name])
    arguments = inputs(config)
    expected = on_numpy(wide, config).logits(*arguments)
    found = on_numpy(mixed, config, "bfloat16").logits(*arguments)
    assert_close(expected, found, BOUNDS["float32"])


@pytest.mark.parametrize("backend", [0, 1], ids=["numpy", "torch"])
def test_prefill_and_steps_are_one_pass(config, dtype, backend):
    """Feeding tokens one by one through the cache gives the logits of the whole sequence at once, padding included."""
    model = models(config, dtype)[backend]
    pixels, ids, prefix, valid = inputs(config, dtype)
    whole = to_numpy(model.logits(pixels, ids, prefix, valid))
    forward, cache_of = model.backend, model.backend.make_cache
    p, given = model.params, model.backend.to_array
    image = forward.encode_image(model.backend.to_activation(pixels), p, config)
    capacity = config.image_tokens + ids.shape[1]
    cache = cache_of(config.text, len(ids), capacity, image)
    seen = given(valid[:, :prefix])
    logit = forward.prefill(image, given(ids[:, :prefix]), seen, p, config, cache)
    for t in range(prefix, ids.shape[1] + 1):
        expected = whole[:, config.image_tokens + t - 1]
        assert_close(expected, logit, BOUNDS[dtype], f"token {t}")
        if t < ids.shape[1]:
            so_far = [npgemma.paligemma, torch_ref.paligemma][backend].with_image(given(valid[:, : t + 1]), image)
            logit = forward.step(given(ids[:, t : t + 1]), so_far, p, config, cache)
    assert cache.length == capacity


@pytest.mark.parametrize("backend", [0, 1], ids=["numpy", "torch"])
def test_a_padded_row_is_the_row_alone(config, dtype, backend):
    model = models(config, dtype)[backend]
    pixels, ids, prefix, valid = inputs(config, dtype)
    batch = to_numpy(model.logits(pixels, ids, prefix, valid))[1]
    short = ids[1:][:, valid[1]]
    alone = to_numpy(model.logits(pixels[1:], short, prefix - 3))[0]
    real = np.concatenate([np.ones(config.image_tokens, dtype=bool), valid[1]])
    assert_close(alone, batch[real], BOUNDS[dtype])


def test_padding_is_never_seen(config):
    model, _ = models(config)
    pixels, ids, prefix, valid = inputs(config)
    real = np.concatenate([np.ones((2, config.image_tokens), dtype=bool), valid], axis=1)
    before = model.logits(pixels, ids, prefix, valid)[real]
    ids[~valid] = 3
    assert np.array_equal(model.logits(pixels, ids, prefix, valid)[real], before)


def test_the_prefix_sees_itself_and_the_answer_looks_back(config):
    """Changing a token moves the logits of exactly those who may see it."""
    model, _ = models(config)
    pixels, ids, prefix, _ = inputs(config)
    before = model.logits(pixels, ids, prefix)[0]
    for t in range(ids.shape[1]):
        other = ids.copy()
        other[0, t] = 4 + (ids[0, t] - 3) % 90
        moved = (model.logits(pixels, other, prefix)[0] != before).any(axis=-1)
        first = 0 if t < prefix else config.image_tokens + t
        assert np.array_equal(moved, np.arange(len(moved)) >= first), f"token {t}"


def test_image_tokens_enter_unscaled(config):
    model, _ = models(config)
    pixels, ids, prefix, _ = inputs(config)
    with npgemma.record() as trace:
        model.logits(pixels, ids, prefix)
    image = trace["logits.0/x_BSD"][:, : config.image_tokens]
    assert np.array_equal(image, trace["encode_image.0/project.0/image_BPD"])
