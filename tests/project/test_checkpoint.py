"""What must hold for any checkpoint: the embedded one by default, a real one with ``pytest --checkpoint DIR``."""

import pathlib

import numpy as np
import pytest
import torch

import npgemma
from npgemma.command.parity import twin_of
from npgemma.image import load_pixels
from npgemma.tools.compare import BOUNDS, DEVICE_FACTOR, Comparison
from npgemma.trace import to_numpy

PROMPT = "caption en"


@pytest.fixture(scope="module")
def both(checkpoint):
    """The checkpoint in both backends, the weights in memory once."""
    model = npgemma.load(checkpoint)
    twin = twin_of(model)
    return model, twin


@pytest.fixture(scope="module")
def example(both):
    """Pixels and prompt of the example picture."""
    model, _ = both
    pixels = load_pixels(npgemma.example_image(), model.config.vision.image_size)
    return pixels, model.tokenizer.prompt(PROMPT)


def test_every_named_array_of_a_whole_answer(both, example):
    model, twin = both
    with npgemma.record() as expected:
        ours = model.generate(example[0], PROMPT, max_new_tokens=4)
    comparison = Comparison(expected, BOUNDS["float32"])
    with npgemma.record(sink=comparison.sink):
        theirs = twin.generate(example[0], PROMPT, max_new_tokens=4)
    assert comparison.passed, [place for place in comparison.places() if place[3].relative_l2 > comparison.bound]
    assert ours.token_ids == theirs.token_ids


def test_the_twin_on_cuda_is_the_port(both, example):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model, _ = both
    twin = twin_of(model, "cuda")
    pixels, ids = example
    expected, found = (to_numpy(m.logits(pixels, [ids], len(ids))) for m in (model, twin))
    assert npgemma.tools.compare.difference(expected, found).relative_l2 < DEVICE_FACTOR["cuda"] * BOUNDS["float32"]


def test_steps_through_the_cache_are_one_pass(both, example):
    """Greedy answers, scored again in one pass without a cache, are its argmax at every position."""
    for model in both:
        answer = model.generate(example[0], PROMPT, max_new_tokens=6).token_ids
        ids = example[1] + answer[:-1]
        logits = to_numpy(model.logits(example[0], [ids], len(example[1])))[0, -len(answer) :]
        chosen = logits[:, : model.tokenizer.size].argmax(axis=-1)
        assert chosen.tolist() == answer


def test_a_padded_row_is_the_row_alone(both, example):
    model, _ = both
    pixels, ids = example
    longer = model.tokenizer.prompt(PROMPT + " and more of it")
    padding = len(longer) - len(ids)
    rows = np.array([longer, [0] * padding + ids])
    valid = np.array([[True] * len(longer), [False] * padding + [True] * len(ids)])
    batch = model.logits(np.concatenate([pixels, pixels]), rows, len(longer), valid)[1, -1]
    alone = model.logits(pixels, [ids], len(ids))[0, -1]
    assert npgemma.tools.compare.difference(alone, batch).relative_l2 < BOUNDS["float32"]


def test_published_backbone_numbers(both, checkpoint):
    """Keras Hub's golden of paligemma-3b-mix-224: the final norm's first five channels of the first picture token."""
    model, _ = both
    if "mix-224" not in str(checkpoint):
        pytest.skip("needs google/paligemma-3b-mix-224: pass --checkpoint DIR with its name")
    ids = np.array([[1169, 2068, 7586, 21831, 13]])
    expected = np.array([-0.449851, 1.431027, -0.713446, 0.417485, -0.640859])
    # Keras Hub changed what zeros mean as pixels while the numbers stayed; one of the two must give them.
    errors = []
    for value in (-1.0, 0.0):
        with npgemma.record(only="logits.0/final_BSD") as trace:
            model.logits(np.full((1, 224, 224, 3), value, np.float32), ids, 5)
        errors.append(np.abs(trace["logits.0/final_BSD"][0, 0, :5] - expected).max())
    assert min(errors) < 0.01


@pytest.mark.parametrize(
    ("prompt", "answer"), [("", "cow on the beach"), ("answer en Where is the cow standing?", "beach")]
)
def test_published_answers(both, checkpoint, prompt, answer):
    """Hugging Face's integration test of paligemma-3b-pt-224; its picture is not ours to ship, so bring it along."""
    picture = pathlib.Path(checkpoint) / "cow_beach_1.png"
    if not picture.exists():
        pytest.skip("needs google/paligemma-3b-pt-224 with cow_beach_1.png in its folder: pass --checkpoint DIR")
    for model in both:
        assert model.generate(picture, prompt, max_new_tokens=10).text == answer
