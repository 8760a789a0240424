"""machinery/generation.py: what an answer shows of itself; and the scores of answers that are given."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import npgemma
import torch_ref
from npgemma.answer import Detection
from npgemma.command.annotate import annotate
from npgemma.machinery.backend import to_numpy
from npgemma.machinery.model import SCORED


@pytest.fixture(scope="module", params=[npgemma, torch_ref], ids=["numpy", "torch"])
def model(request):
    return request.param.load()


@pytest.fixture(scope="module")
def answer(model):
    return model.generate(npgemma.example_image(), "<bos>segment red circle")


def test_models_and_weights_are_shown_in_one_line(model, gemma_2_folder):
    size, place = "2,661,504 parameters, images of 112 x 112 pixels", f"float32 on {model.backend.name} (cpu)"
    assert repr(model) == f"<npgemma.Model PaliGemma: {size}, {place}, from '{npgemma.embedded_checkpoint()}'>"
    assert "PaliGemma 2: " in repr(npgemma.load(gemma_2_folder, dtype="bfloat16"))
    # 128 channels to 144, and a bias.
    assert repr(model.params.projector) == "ProjectorParams(18,576 parameters)"


def test_a_dict_holds_what_the_command_prints_and_where_it_came_from(answer):
    found = json.loads(json.dumps(answer.to_dict("example.png")))
    assert (found["image"], found["prompt"], found["text"]) == ("example.png", "<bos>segment red circle", answer.text)
    assert (found["image_size"], found["checkpoint"]) == ([336, 336], str(npgemma.embedded_checkpoint()))
    assert [each["label"] for each in found["objects"]] == ["red circle"]
    assert sum(found["objects"][0]["mask"]["counts"]) == 336 * 336
    assert npgemma.Generation().to_dict()["image"] is None


def test_an_answer_draws_on_its_image_and_on_no_other(answer):
    image = Image.open(npgemma.example_image())
    drawn = annotate(image.convert("RGB"), answer.objects)
    assert answer.objects[0].mask is not None
    for form in (npgemma.example_image(), image, np.asarray(image)):
        assert np.array_equal(answer.draw(form), drawn)
    with pytest.raises(npgemma.InputError, match=r"image of \(336, 336\) pixels, found one of \(300, 336\)"):
        answer.draw(image.resize((300, 336)))
    for bad in ("none.png", 5, [image], npgemma.image.load_image(image, 112)):
        with pytest.raises(npgemma.InputError, match="image"):
            answer.draw(bad)


def test_a_notebook_shows_text_and_boxes_without_what_is_hidden_in_them():
    hostile = "<script>&\x1b\u202e\n"
    shown = npgemma.Generation(hostile, objects=[Detection(hostile, (1.4, 2, 3, 4.6))])._repr_html_()
    assert r"pre-wrap" + '">&lt;script&gt;&amp;\\u001b\\u202e\n</p>' in shown
    assert r"<td>&lt;script&gt;&amp;\u001b\u202e\u000a</td><td>1</td><td>2</td><td>3</td><td>5</td>" in shown
    assert "<table" not in npgemma.Generation("a cat")._repr_html_()


@pytest.mark.parametrize("prompt", ["caption en", "answer en how many objects"])
def test_scores_are_those_of_the_logits_that_the_answer_came_from(model, prompt):
    with npgemma.record(only="*/logit_BV") as trace:
        answer = model.generate(npgemma.example_image(), prompt)
    [score] = model.score(npgemma.example_image(), prompt, [answer.text])
    logit_TV = np.concatenate([to_numpy(array) for array in trace.values()]).astype(np.float64)
    chosen = logit_TV[range(len(logit_TV)), answer.token_ids]
    assert score.token_ids == answer.token_ids
    expected = chosen - np.log(np.exp(logit_TV).sum(axis=-1))
    # Both are float64 of the same logits; largest difference seen 1.8e-15.
    np.testing.assert_allclose(score.log_probabilities, expected, rtol=0, atol=1e-13)
    assert score.total == pytest.approx(expected.sum())


def test_an_answer_is_scored_among_others_as_alone_and_the_image_is_encoded_once(model):
    texts = [*["red", "3", "", "a large red circle"] * 2, "three"]
    assert len(texts) > SCORED
    with npgemma.record(only="*features_BPE") as trace:
        scores = model.score(npgemma.example_image(), "answer en how many objects", texts)
    assert {name.partition("/")[0] for name in trace} == {"encode_image.0"}
    assert [score.answer for score in scores] == texts
    assert max(scores, key=lambda score: score.total).answer == "3"
    # An end token within a given answer does not end it.
    red = model.tokenizer.encode("red")[0]
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, eos_tokens=(1, red)))
    for text, score in zip(texts, scores):
        [alone] = model.score([npgemma.example_image()], "<image>answer en how many objects", [text])
        assert score.token_ids == alone.token_ids == [*model.tokenizer.encode(text), model.tokenizer.eos]
        # Down to -25; largest difference seen 7.2e-6.
        np.testing.assert_allclose(score.log_probabilities, alone.log_probabilities, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"answers": "3"}, "a list of at least one text, found '3'"),
        ({"answers": []}, "a list of at least one text"),
        ({"answers": ["3", None]}, "a list of at least one text"),
        ({"answers": ["3 " * 4000]}, "more than the model's context"),
        ({"prompt": None}, "a prompt should be a text"),
        ({"image": "none.png"}, "no image at"),
    ],
)
def test_what_cannot_be_scored(model, arguments, says):
    given = {"image": npgemma.example_image(), "prompt": "ocr", "answers": ["3"]} | arguments
    with pytest.raises(npgemma.InputError, match=says):
        model.score(**given)
