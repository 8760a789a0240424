"""machinery/generation.py: what an answer shows of itself; and the scores of answers that are given."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import npgemma
import torch_ref
from npgemma.answer import Detection
from npgemma.command.annotate import annotate
from npgemma.machinery.backend import to_numpy

IMAGE, COUNT = npgemma.example_image(), "answer en how many objects"


@pytest.fixture(scope="module", params=[npgemma, torch_ref], ids=["numpy", "torch"])
def model(request):
    return request.param.load()


def test_models_and_weights_are_shown_in_one_line(model, gemma_2_folder):
    size, place = "2,661,504 parameters, images of 112 x 112 pixels", f"float32 on {model.backend.name} (cpu)"
    assert repr(model) == f"<npgemma.Model PaliGemma: {size}, {place}, from '{npgemma.embedded_checkpoint()}'>"
    assert "PaliGemma 2: " in repr(npgemma.load(gemma_2_folder, dtype="bfloat16"))
    assert repr(model.params.projector) == f"ProjectorParams({128 * 144 + 144:,} parameters)"


def test_an_answer_draws_on_its_image_and_on_no_other(model):
    image, answer = Image.open(IMAGE), model.generate(IMAGE, "segment red circle")
    assert answer.objects[0].mask is not None
    assert np.array_equal(answer.draw(np.asarray(image)), annotate(image.convert("RGB"), answer.objects))
    for bad in ("none.png", [image], npgemma.image.load_image(image, 112), image.resize((300, 336))):
        with pytest.raises(npgemma.InputError, match=r"image (at|should)|of 336 x 336 pixels, found one of 300 x 336"):
            answer.draw(bad)


def test_a_notebook_shows_text_and_boxes_without_what_is_hidden_in_them():
    hostile = "<script>&\x1b\u202e\n"
    shown = npgemma.Generation(hostile, objects=[Detection(hostile, (1.4, 2, 3, 4.6))])._repr_html_()
    assert '">&lt;script&gt;&amp;\\u001b\\u202e\n</p>' in shown
    assert r"<td>&lt;script&gt;&amp;\u001b\u202e\u000a</td><td>1</td><td>2</td><td>3</td><td>5</td>" in shown


def test_scores_are_those_of_the_logits_that_an_answer_came_from(model):
    with npgemma.record(only="*/logit_BV") as trace:
        answer = model.generate(IMAGE, "caption en")
    logit_TV = np.concatenate([to_numpy(array) for array in trace.values()]).astype(np.float64)
    expected = logit_TV[range(len(logit_TV)), answer.token_ids] - np.log(np.exp(logit_TV).sum(axis=-1))
    # Both are float64 of the same logits; largest difference seen 1.8e-15.
    np.testing.assert_allclose(model.score(IMAGE, "caption en", [answer.text])[0], expected, rtol=0, atol=1e-13)


def test_an_answer_is_scored_among_others_as_alone_and_the_image_is_encoded_once(model):
    texts = ["red", "3", "", "a large red circle", "three"]
    with npgemma.record(only="*features_BPE") as trace:
        scores = model.score(IMAGE, COUNT, texts)
    assert {name.partition("/")[0] for name in trace} == {"encode_image.0"}
    assert texts[np.argmax([score.sum() for score in scores])] == "3"
    # An end token within a given answer does not end it.
    ends = 1, model.tokenizer.encode("red")[0]
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, eos_tokens=ends))
    for text, score in zip(texts, scores):
        # Down to -25; largest difference seen 7.2e-6.
        np.testing.assert_allclose(score, model.score([IMAGE], f"<image>{COUNT}", [text])[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("answers", ["3", 3, [], ["3", None], ["3 " * 999]])
def test_what_cannot_be_scored(model, answers):
    with pytest.raises(npgemma.InputError, match=r"a list of at least one text, found|answer have 2066 tokens, the"):
        model.score(IMAGE, "ocr", answers)
