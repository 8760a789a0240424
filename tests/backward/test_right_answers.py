"""Batches of right answers, what is refused, and the example that learns some by heart."""

import dataclasses

import numpy as np
import pytest
from learning import of_random_weights
from PIL import Image
from safetensors.numpy import load_file

import npgemma
from examples.overfit import draw, train
from npgemma.backward.answers import batch_of, gradients
from npgemma.command import main
from npgemma.params import leaves

IMAGE, MODEL = np.zeros((1, 112, 112, 3)), npgemma.load()


def test_a_batch_is_prompt_answer_and_end_token():
    batch, words = batch_of(MODEL, IMAGE, ["<image>ocr", "caption en"], ["TAXI", "a red circle"]), MODEL.tokenizer
    for row, (prompt, answer) in enumerate([("ocr", "TAXI"), ("caption en", "a red circle")]):
        question, reply = words.prompt(prompt), [*words.encode(answer), words.eos]
        for flag, ids in ((batch.prefix_BT, question), (batch.answer_BT, reply), (batch.valid_BT, question + reply)):
            assert batch.ids_BT[row, flag[row]].tolist() == ids
    assert (batch.pixels.shape, batch.pixels.dtype) == ((2, *IMAGE.shape[1:]), np.float32)


FIRST = np.arange(11) == np.zeros((2, 1))  # nothing predicts the first token


@pytest.mark.parametrize(
    ("array", "value", "weights", "match"),
    [
        ("answer_BT", FIRST, None, "found none in the batch: give answers"),
        ("ids_BT", FIRST - 2, None, "token ids should lie between 0 and 100, found -2 to -1"),
        ("ids_BT", FIRST + 100, None, "token ids should lie between 0 and 100, found 100 to 101"),
        ("pixels", np.full((2, 28, 28, 3), np.nan), None, "gradients of vision.patch_embedding, .* are not finite"),
        ("ids_BT", FIRST, npgemma.load(dtype="int8").params, "embedding is held as int8.*: load float32 or float64"),
        ("ids_BT", FIRST, npgemma.load(dtype="bfloat16").params, "is held as bfloat16.*: load float32 or float64"),
    ],
)
def test_what_cannot_be_learned(array, value, weights, match):
    p, config, batch = of_random_weights("two key/value heads", "float64")
    with pytest.raises(npgemma.InputError, match=match):
        gradients(dataclasses.replace(batch, **{array: value}), weights or p, config)


TOO_FEW, TOO_LONG, NO_TEXT = "found 0 answers and 1 images", "room for 192: shorten them", "a text, found 3"


@pytest.mark.parametrize(("answers", "match"), [([], TOO_FEW), (["red " * 200], TOO_LONG), ([3], NO_TEXT)])
def test_answers_that_do_not_fit(answers, match):
    with pytest.raises(npgemma.InputError, match=match):
        batch_of(MODEL, IMAGE, ["ocr"], answers)


def test_five_steps_of_the_example(tmp_path):
    losses, _ = train(MODEL, 5)
    assert losses[-1] < losses[0] / 4
    draw(losses, tmp_path / "curve.png")
    assert np.asarray(Image.open(tmp_path / "curve.png")).min() == 0


@pytest.mark.parametrize("answer", [None, "a large green circle"])
def test_gradients_of_an_answer_are_traced(tmp_path, answer):
    given = ["--max-new-tokens", "40"] if answer is None else ["--answer", answer]
    assert main(["trace", "--backward", "--out", f"{tmp_path}/x.safetensors", *given]) == 0
    found, right = load_file(tmp_path / "x.safetensors"), answer or MODEL.generate(npgemma.example_image()).text
    image = npgemma.image.load_pixels(npgemma.example_image(), 112)
    _, dpixels, dp = gradients(batch_of(MODEL, image, ["caption en"], [right]), MODEL.params, MODEL.config)
    assert np.array_equal(found["encode_image.0/pixels_BYXC"], dpixels)
    assert all(np.array_equal(found[f"{name}_{axes}"], dweight) for name, axes, dweight in leaves(dp))
    assert "logits.0/run_blocks.0/block.2/grouped_query_attention.0/attend.0/weight_BKGTS" in found
