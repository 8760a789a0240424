"""exact.py: a reference in float64 that holds its weights gives the numbers of one that copies them."""

import numpy as np
import pytest
from support import CONFIGS, GEMMA_2, assert_close, inputs, models

import npgemma
from npgemma.fast.bfloat16 import BFloat16Weight
from npgemma.image import load_image
from npgemma.params import leaves
from npgemma.porting import compare, exact, from_model, narrow


def logits(model, config):
    pixels, *text = inputs(config)
    return model.logits(pixels, *text)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("config", [CONFIGS["two key/value heads"], GEMMA_2], ids=["Gemma", "Gemma 2"])
def test_weights_that_are_held_are_those_that_are_copied(config, dtype, monkeypatch):
    model, _ = models(config, "float32")
    copied = exact.exact(model, dtype)
    monkeypatch.setattr(exact, "MOST_COPIED", 0)
    held = exact.exact(model, dtype)
    # A product of the same numbers, summed in another order.
    assert_close(logits(copied, config), logits(held, config), 1e-13)
    assert logits(held, config).dtype == np.float64
    kinds = {type(leaf) if leaf.ndim > 1 else leaf.dtype for _, _, leaf in leaves(held.params)}
    assert np.dtype("float64") in kinds, "scales and biases are added to 1 in float64"
    assert (BFloat16Weight in kinds) == (dtype == "bfloat16")


def test_rounding_of_weights_shows():
    config = CONFIGS["two key/value heads"]
    model, _ = models(config, "float32")
    right, rounded = (logits(exact.exact(model, dtype), config) for dtype in ("float32", "bfloat16"))
    assert 1e-4 < np.linalg.norm(right - rounded) / np.linalg.norm(right) < 1e-1


def test_the_dtype_of_a_port_is_that_of_all_its_numbers():
    third, ids = np.float32([1 / 3, -np.inf]), np.array([3, 1001])
    float16, half = third.astype(np.float16), third.view(np.uint32).__and__(0xFFFF0000).view(np.float32)
    given = {"float16": [float16, ids], "bfloat16": [half, half.astype(np.float64), ids], "float32": [half, third]}
    for dtype, arrays in given.items():
        assert narrow.dtype_of(arrays) == dtype
    assert narrow.dtype_of([ids]) == "float32"


def test_own_errors_are_judged_on_held_weights_too(monkeypatch):
    """As those of a model that is too large to be copied; nothing is left out in silence."""
    monkeypatch.setattr(exact, "MOST_COPIED", 0)
    model = npgemma.load()
    image = load_image(npgemma.example_image(), model.config.vision.image_size)
    reference = from_model(model, image, model.tokenizer.prompt("caption en"), most=2)
    port = {name: array.copy() for name, array in reference.arrays.items()}
    assert compare(reference, port)["judged_by"] == "own error"
    port["prefill.0/run_blocks.0/block.1/mid_BTD"] += 1e-3
    report = compare(reference, port)
    assert (report["passed"], report["first"]["name"]) == (False, "prefill.0/run_blocks.0/block.1/mid_BTD")
