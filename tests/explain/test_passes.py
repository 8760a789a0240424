"""passes.py and attention_maps.py: what is shown of an answer is what the passes held, in both backends."""

from types import SimpleNamespace

import numpy as np
import pytest

import npgemma
import torch_ref
from npgemma.explain.attention_maps import Attention, attention_of
from npgemma.explain.passes import watched
from npgemma.image import load_image
from npgemma.ops import softmax

PROMPT = "detect red circle ; blue square"


@pytest.fixture(scope="module")
def image():
    return load_image(npgemma.example_image(), npgemma.load().config.vision.image_size)


@pytest.mark.parametrize("package", [npgemma, torch_ref])
def test_candidates_are_the_softmax_of_the_logits(image, package):
    """Held against logits in one pass, without a cache."""
    model = package.load()
    with watched(model, tokens=4) as passes:
        answer = model.generate(image, PROMPT, max_new_tokens=4)
    prompt, size = model.tokenizer.prompt(PROMPT), model.tokenizer.size
    logits = np.asarray(model.logits(image.pixels_BYXC, [prompt + answer.token_ids], prefix=len(prompt)).tolist())
    expected = softmax(logits[0, -len(answer.token_ids) - 1 : -1, :size])
    places = passes.candidates(0, len(answer.token_ids))
    assert [place[0].id for place in places] == answer.token_ids
    for place, probability in zip(places, expected):
        assert [one.id for one in place] == list(np.argsort(-probability)[:4])
        found = [one.probability for one in place]
        assert np.abs(found - probability[[one.id for one in place]]).max() < 1e-5


def test_rows_of_a_batch_are_kept_apart(image):
    model = npgemma.load()
    with watched(model, tokens=2) as passes:
        answers = model.generate_batch([image], [PROMPT, "ocr"], max_new_tokens=4)
    for row, answer in enumerate(answers):
        assert [place[0].id for place in passes.candidates(row, len(answer.token_ids))] == answer.token_ids


def test_the_attention_is_that_of_the_position_that_chose_the_token(image):
    """Held against the rows of one pass without a cache, and equal in both backends."""
    model, found = npgemma.load(), []
    for package in (npgemma, torch_ref):
        with watched(package.load(), attention=True) as passes:
            answer = package.load().generate(image, PROMPT, max_new_tokens=3)
        found.append(attention_of(passes, answer, 1, len(model.tokenizer.prompt(PROMPT))))
    ids = model.tokenizer.prompt(PROMPT)
    with npgemma.record(only="*/run_blocks.0/*/weight_BKGTS") as trace:
        model.logits(image.pixels_BYXC, [ids + answer.token_ids], prefix=len(ids))
    layers = [weight.reshape(-1, *weight.shape[3:]) for weight in trace.values()]
    for token in range(len(answer.token_ids)):
        tokens = model.config.image_tokens + len(ids) + token
        expected = np.stack([weight[:, tokens - 1, :tokens] for weight in layers])
        for attention in found:
            assert np.abs(attention.weight_TLNS[token] - expected).max() < 1e-5


def test_shares_map_and_ranking():
    """Two images of four patches, a prompt of three tokens, the answer's second token; one layer of two heads."""
    weight_S = np.arange(1.0, 13) / 78
    blurred_S = np.full(12, 1 / 12)
    attention = Attention([np.stack([[blurred_S, weight_S]])], images=2, image_tokens=8, prompt_tokens=3)
    assert np.allclose(attention.shares(0, 0, 1), [36 / 78, 9 / 78, 21 / 78, 12 / 78])
    assert (attention.map(0, 0, 1) * 78).round().tolist() == [[1, 2, 5, 6], [3, 4, 7, 8]]
    assert attention.sharpest(5) == [(0, 1), (0, 0)]


def test_the_attention_is_that_of_the_answers_tokens():
    """Passes may go on after the answer; of the keys, those of the prompt come after the image's."""
    weights = {i: [np.ones((1, 2, 9 + i))] * 3 for i in range(4)}
    attention = attention_of(SimpleNamespace(weights=weights), SimpleNamespace(token_ids=[7, 8]), 1, 5)
    assert [weight.shape for weight in attention.weight_TLNS] == [(3, 2, 9), (3, 2, 10)]
    assert (attention.image_tokens, attention.prompt_tokens) == (4, 5)
