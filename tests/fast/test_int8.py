"""int8.py: weights in eight bits, and a model that holds them."""

import numpy as np
import pytest
from support import CONFIGS, assert_close, random
from test_products import WEIGHTS, block  # noqa: F401 (a fixture)

import conversion
import npgemma
from npgemma import ops
from npgemma.fast import int8
from npgemma.fast.bfloat16 import narrow, widen
from npgemma.fast.int8 import Int8Weight, quantize
from npgemma.params import leaves
from npgemma.porting.bounds import OPERATION


def rounded(stored, order, wide=lambda part: part):
    return quantize(stored, lambda array: array.transpose(order), wide)


@pytest.mark.parametrize("piece", [2**18, 20])
def test_entries_are_off_by_at_most_half_a_step(piece, cores, monkeypatch):
    monkeypatch.setattr(int8, "PIECE", piece)
    stored = random((9, 3, 4), 0, "float32")
    weight = rounded(stored, (1, 2, 0))
    step = np.abs(stored).max(axis=(1, 2)) / 127
    assert weight.number_NK.dtype == np.int8
    assert np.abs(weight.number_NK).max(axis=1).tolist() == [127] * 9
    off = np.abs(np.asarray(weight) - stored.transpose(1, 2, 0))
    assert (off <= step / 2 * (1 + 1e-5)).all()
    assert off.max() > step.max() / 4


@pytest.mark.parametrize(("formula", "activations", "stored", "order"), WEIGHTS)
def test_products_are_those_of_the_values(formula, activations, stored, order, cores, block):  # noqa: F811
    x = random(activations, 0, "float32")
    # As in a file: a matrix, whose rows are all that comes out.
    matrix = random(stored, 1, "float32").reshape(np.prod(stored[: 2 if "DNH" in formula else 1]), -1)
    weight = quantize(matrix, lambda array: array.reshape(stored).transpose(order))
    expected = np.einsum(formula, x.astype("f8"), np.asarray(weight).astype("f8")).astype("float32")
    assert_close(expected, ops.einsum(formula, x, weight), OPERATION["float32"])


def test_it_stands_where_an_array_stands():
    stored = random((5, 6), 0, "float32")
    weight = rounded(stored, (1, 0))
    assert (weight.shape, weight.ndim, weight.size) == ((6, 5), 2, 30)
    table = rounded(stored, (0, 1))
    ids = np.array([[0, 4], [2, 2]])
    np.testing.assert_array_equal(table[ids], np.asarray(table)[ids])


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_rows_of_zeros_and_of_nan(value):
    stored = random((4, 6), 0, "float32")
    stored[2] = value
    found = np.asarray(rounded(stored, (0, 1)))
    assert np.isfinite(found[[0, 1, 3]]).all()
    np.testing.assert_array_equal(found[2], np.full(6, value))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_checkpoint_of_any_dtype_is_rounded(tmp_path, dtype):
    config = CONFIGS["two key/value heads"]
    params = conversion.random_params(config, 0)
    conversion.save(tmp_path, params, config, dtype)
    found, _ = conversion.read_folder(tmp_path, "int8")
    plain, _ = conversion.read_folder(tmp_path, "float32")
    kinds = set()
    for (name, _, array), (_, _, expected) in zip(leaves(found), leaves(plain)):
        kinds.add(isinstance(array, Int8Weight))
        if isinstance(array, Int8Weight):
            assert np.abs(np.asarray(array) - expected).max() <= np.abs(expected).max() / 127 / 2 * 1.0001, name
        else:
            np.testing.assert_array_equal(array, expected, err_msg=name)
    assert kinds == {True, False}


def test_the_embedded_model_answers_alike():
    exact, small = npgemma.load(), npgemma.load(dtype="int8")
    for prompt in ("caption en", "answer en how many objects"):
        image = npgemma.example_image()
        assert small.generate(image, prompt).text == exact.generate(image, prompt).text


def test_a_weight_that_is_not_a_number_is_found(tmp_path, image):
    config = CONFIGS["two key/value heads"]
    params = conversion.random_params(config, 0)
    params.text.blocks[1].mlp.up[3, 5] = np.nan
    conversion.save(tmp_path, params, config)
    model = npgemma.load(tmp_path, dtype="int8")
    pixels = np.zeros((1, config.vision.image_size, config.vision.image_size, 3), dtype=np.float32)
    with pytest.raises(npgemma.InputError, match=r"text\.blocks\.1\.mlp\.up"):
        model.logits(pixels, [[2, 5, 6]], 3)


def test_bfloat16_values_that_are_rounded_are_those_of_the_file():
    stored = narrow(random((5, 8), 0, "float32"))
    found, expected = rounded(stored, (0, 1), widen), rounded(widen(stored), (0, 1))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
