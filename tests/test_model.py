"""model.py: what people call, on both backends."""

import concurrent.futures
import copy
import dataclasses
import functools
import itertools
import json
import multiprocessing
import pickle
import typing

import numpy as np
import pytest
import torch
from PIL import Image
from support import rewrite

import npgemma
import torch_ref
from npgemma.answer import find_objects
from npgemma.image import Preprocessing, load_image, load_pixels
from npgemma.machinery.backend import to_numpy
from npgemma.machinery.sampling import Sampling, Settings

LOADERS = {"numpy": npgemma.load, "torch": torch_ref.load}


@pytest.fixture(scope="module", params=LOADERS)
def model(request, random_folder):
    return LOADERS[request.param](random_folder)


def test_an_answer_has_text_ids_and_timings(model, image):
    answer = model.generate(image, "caption en", max_new_tokens=5)
    assert len(answer.token_ids) == 5
    assert answer.text == model.tokenizer.decode(answer.token_ids)
    assert set(answer.timings) == {"load", "vision", "prefill", "seconds_per_token"}
    assert all(seconds > 0 for seconds in answer.timings.values())


def test_one_token_has_no_time_for_further_ones(model, image):
    assert model.generate(image, max_new_tokens=1).timings["seconds_per_token"] is None


def test_every_form_of_image_gives_the_same_answer(model, image):
    opened = Image.open(image)
    forms = [str(image), image, opened, np.asarray(opened), load_pixels(image, 28)]
    answers = [model.generate(form, max_new_tokens=6).token_ids for form in forms]
    assert all(answer == answers[0] for answer in answers)


def test_answers_of_a_batch_are_those_of_each_alone(model, image):
    """Prompts of three lengths, two images; drawn, so that the random numbers count too."""
    prompts = ["caption en", "", "answer en how many objects and how many circles"]
    images = [image, np.asarray(Image.open(image))[::-1], image]
    settings = {"max_new_tokens": 8, "do_sample": True, "temperature": 1.5}
    found = model.generate_batch(images, prompts, seed=5, **settings)
    alone = [model.generate(*pair, seed=5 + i, **settings) for i, pair in enumerate(zip(images, prompts))]
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in alone]
    assert [answer.text for answer in found] == [answer.text for answer in alone]


def test_the_token_that_reaches_top_p_is_drawn_and_no_further_one(model):
    logit_BV = np.full((1, model.config.text.vocabulary), -100, np.float32)
    logit_BV[0, [5, 3, 8, 9]] = np.log([0.5, 0.3, 0.15, 0.05])
    choose = model.chooser(Sampling(do_sample=True, top_p=0.7, seed=0))
    assert {int(choose(model.backend.to_array(logit_BV))[0]) for _ in range(50)} == {5, 3}


def test_settings_at_the_ends_of_their_ranges():
    least = Sampling(max_new_tokens=1, do_sample=True, temperature=0, top_k=1, top_p=5e-324, seed=0)
    assert (least.top_k, least.seed, Sampling(top_p=1).top_p) == (1, 0, 1)
    for name, value in (("top_p", np.nextafter(1, 2)), ("top_p", True), ("temperature", -5e-324), ("seed", True)):
        with pytest.raises(npgemma.InputError, match=name):
            Sampling(**{name: value})
    given = {"max_new_tokens": 100, "do_sample": False, "temperature": 1.0, "top_k": None, "top_p": 1.0, "seed": None}
    assert Sampling.of() == Sampling(**given)
    with pytest.raises(TypeError, match="'beams' is not a setting of an answer: expected max_new_tokens, do_sample"):
        Sampling.of(beams=2)
    with pytest.raises(TypeError, match="positional"):
        Sampling(100)


def test_one_image_serves_all_prompts_of_a_batch(model, image):
    prompts = ["caption en", "answer en how many objects"]
    found = model.generate_batch([image], prompts, max_new_tokens=5)
    assert [a.token_ids for a in found] == [model.generate(image, p, max_new_tokens=5).token_ids for p in prompts]


@pytest.mark.parametrize(("images", "prompts"), [(2, 3), (3, 2), (0, 1), (1, 0)])
def test_a_batch_needs_a_image_for_each_prompt(model, image, images, prompts):
    with pytest.raises(npgemma.InputError, match="one image for each"):
        model.generate_batch([image] * images, ["ocr"] * prompts)


def test_greedy_is_argmax_of_the_logits(model, image):
    """Token by token against one pass over the whole sequence."""
    answer = model.generate(image, "caption en", max_new_tokens=6).token_ids
    prompt = model.tokenizer.prompt("caption en")
    logits = to_numpy(model.logits(load_pixels(image, 28), [prompt + answer[:-1]], len(prompt)))
    assert logits[0, -6:, : model.tokenizer.size].argmax(axis=-1).tolist() == answer


def test_rows_without_a_piece_are_never_chosen(random_folder, image):
    model = npgemma.load(random_folder)
    before = model.generate(image, max_new_tokens=4).token_ids
    rewrite_embedding = np.array(model.params.text.embedding)
    rewrite_embedding[model.tokenizer.size :] *= 1e3
    text = dataclasses.replace(model.params.text, embedding=rewrite_embedding)
    model = dataclasses.replace(model, params=dataclasses.replace(model.params, text=text))
    assert model.generate(image, max_new_tokens=4).token_ids == before


def test_a_seed_repeats_and_another_does_not(model, image):
    settings = {"max_new_tokens": 12, "do_sample": True, "temperature": 1.5, "top_p": 0.95, "top_k": 500}
    first = model.generate(image, seed=1, **settings).token_ids
    assert model.generate(image, seed=1, **settings).token_ids == first
    assert model.generate(image, seed=2, **settings).token_ids != first


def test_both_backends_draw_the_same_tokens(random_folder, image):
    settings = {"max_new_tokens": 12, "do_sample": True, "top_p": 0.9, "seed": 3}
    ours, theirs = (load(random_folder).generate(image, **settings).token_ids for load in LOADERS.values())
    assert ours == theirs


def test_watch_sees_the_answer_grow(model, image):
    seen = []
    model.generate(image, max_new_tokens=5, watch=lambda g: seen.append((len(g.token_ids), g.text)))
    assert [count for count, _ in seen] == [1, 2, 3, 4, 5]
    assert all(after.startswith(before) for (_, before), (_, after) in itertools.pairwise(seen))


def test_the_context_bounds_prompt_and_answer(model, image):
    """96 tokens: 16 of the image; 'x' and newline and <bos> leave 77."""
    assert len(model.generate(image, "x", max_new_tokens=10**9).token_ids) <= 77
    with pytest.raises(npgemma.InputError, match="context of 96"):
        model.generate(image, "x " * 50)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_settings(model, image, setting, says):
    with pytest.raises(npgemma.InputError, match=says):
        model.generate(image, **setting)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pixels": np.zeros((1, 14, 14, 3), np.float32)}, "pixels of shape"),
        ({"pixels": np.zeros((1, 28, 28, 3), np.uint8)}, "pixels of shape"),
        ({"ids": np.array([1, 2])}, "token ids of shape"),
        ({"ids": np.array([[1.0]])}, "token ids of shape"),
        ({"ids": np.array([[1], [2]])}, "token ids of shape"),
        ({"ids": np.array([[10**6]])}, "between 0 and"),
        ({"ids": np.array([[-1]])}, "between 0 and"),
        ({"ids": np.ones((1, 90), int)}, "context of 96"),
        ({"valid": np.ones((1, 5), bool)}, "shape of ids"),
    ],
)
def test_logits_of_what_does_not_fit(model, change, says):
    given = {"pixels": np.zeros((1, 28, 28, 3), np.float32), "ids": np.array([[2, 7]]), "prefix": 2} | change
    with pytest.raises(npgemma.InputError, match=says):
        model.logits(**given)


def test_logits_are_of_every_position(model):
    logits = model.logits(np.zeros((2, 28, 28, 3)), np.array([[2, 7, 9], [2, 8, 9]]), 2)
    assert tuple(logits.shape) == (2, 16 + 3, model.config.text.vocabulary)


@pytest.mark.parametrize("backend", LOADERS)
def test_weights_that_are_not_numbers_are_named(copied, image, backend):
    def change(name, dtype, array):
        if name.endswith("layers.1.mlp.up_proj.weight"):
            array[3, 4] = np.nan
        return [(name, dtype, array)]

    rewrite(copied, change)
    with pytest.raises(npgemma.InputError, match=r"weight text\.blocks\.1\.mlp\.up in .* not numbers"):
        LOADERS[backend](copied).generate(image, max_new_tokens=3)


def test_a_folder_without_tokenizer_gives_logits_but_no_text(copied, image):
    (copied / "tokenizer.model").unlink()
    model = npgemma.load(copied)
    assert np.isfinite(model.logits(load_pixels(image, 28), [[2, 7]], 2)).all()
    with pytest.raises(npgemma.InputError, match="needs the checkpoint's tokenizer"):
        model.generate(image)


def test_a_tokenizer_of_another_model(copied, image):
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["vocab_size"] = 101
    (copied / "config.json").write_text(json.dumps(config))
    embedding = "embed_tokens.weight"
    rewrite(copied, lambda n, d, a: [(n, d, a[:101].copy() if n.endswith(embedding) else a)])
    with pytest.raises(npgemma.InputError, match="pieces, but the model has only 101"):
        npgemma.load(copied).generate(image)


def test_bfloat16_answers_from_both_backends(random_folder, image):
    for load in LOADERS.values():
        assert len(load(random_folder, dtype="bfloat16").generate(image, max_new_tokens=3).token_ids) == 3


def test_every_answer_says_why_it_ended(model, image):
    assert model.generate(image, max_new_tokens=2).finish_reason == "length"
    full = model.generate(image, max_new_tokens=10**6)
    room = model.config.text.context_length - model.config.image_tokens - len(model.tokenizer.prompt("caption en"))
    assert (full.finish_reason, len(full.token_ids)) == ("context", room)
    embedded = npgemma.load().generate(npgemma.example_image())
    assert (embedded.finish_reason, embedded.token_ids[-1]) == ("stop", npgemma.load().config.eos_tokens[0])


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_objects_are_told_in_pixels_of_the_image(load):
    model, image = load(), Image.open(npgemma.example_image()).resize((500, 200))
    for form in (image, np.asarray(image.convert("RGB")), load_image(image, model.config.vision.image_size)):
        answer = model.generate(form, "segment red circle")
        [found] = answer.objects
        assert found.mask.shape == (200, 500)
        assert found.box == find_objects(answer.text, (500, 200))[0].box
        assert found.mask.any()


def test_rows_of_a_batch_have_timings_of_their_own(model, image):
    answers = model.generate_batch([image], ["ocr", "caption en"], max_new_tokens=4)
    assert answers[0].timings is not answers[1].timings
    for answer in answers:
        assert answer.timings["prefill"] > 0


def test_results_and_settings_cannot_be_changed(model, image):
    answer = model.generate(image, max_new_tokens=1)
    for thing, name in ((answer, "text"), (model, "params"), (model.backend, "dtype"), (npgemma.Sampling(), "seed")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, None)


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_answers_given_in_eight_threads_are_right(load):
    """Answers of one model, asked for at the same time, are those it gives one after the other."""
    model, image = load(), npgemma.example_image()
    prompts = ["caption en", "ocr", "answer en how many objects", "detect red circle", "caption de"] * 2
    expected = {prompt: model.generate(image, prompt).token_ids for prompt in set(prompts)}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda prompt: model.generate(image, prompt).token_ids, prompts))
    assert found == [expected[prompt] for prompt in prompts]


def test_logits_of_torch_can_be_differentiated_in_pixels_and_weights(random_folder):
    """Against differences of the logits in float64, along one random direction of each."""
    model = torch_ref.load(random_folder, dtype="float64")
    size = model.config.vision.image_size
    randomness = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, size, size, 3, generator=randomness, dtype=torch.float64) * 2 - 1
    norm = model.params.text.norm
    model = dataclasses.replace(
        model, params=dataclasses.replace(model.params, text=dataclasses.replace(model.params.text, norm=norm.clone()))
    )
    weights = model.params.text.norm.requires_grad_()
    ids = torch.tensor([[2, 5, 6, 7]])

    def score(pixels):
        return model.logits(pixels, ids, 4)[0, -1].square().sum()

    pixels.requires_grad_()
    score(pixels).backward()
    for x in (pixels, weights):
        direction = torch.randn(x.shape, generator=randomness, dtype=torch.float64)
        before, step = x.detach().clone(), 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                x.copy_(before + sign * step * direction)
                values.append(score(pixels).item())
        with torch.no_grad():
            x.copy_(before)
        expected = (values[0] - values[1]) / (2 * step)
        # Largest difference seen 3e-9 of the value.
        assert (x.grad * direction).sum().item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "settings", [{"max_new_tokens": 1.5}, {"do_sample": 1}, {"temperature": "1"}, {"top_k": True}, {"seed": 0.5}]
)
def test_settings_of_another_type_are_refused(settings):
    with pytest.raises(npgemma.InputError, match=next(iter(settings))):
        npgemma.Sampling(**settings)


def test_type_checkers_know_the_settings():
    fields = {field.name: field.type for field in dataclasses.fields(Sampling)}
    assert typing.get_type_hints(Settings) == fields


@pytest.mark.parametrize("ask", ["generate", "generate_batch"])
def test_an_unknown_setting_is_refused(model, image, ask):
    with pytest.raises(TypeError, match=r"'max_length' is not a setting.*max_new_tokens, do_sample, .*, seed$"):
        getattr(model, ask)([image], ["caption en"], max_length=5)


@pytest.mark.parametrize(
    ("load", "arguments", "says"),
    [
        (npgemma.load, {"device": "cuda"}, "NumPy runs on the CPU"),
        (npgemma.load, {"static": True}, "static shapes"),
        (npgemma.load, {"dtype": "float16"}, "float32"),
        (torch_ref.load, {"dtype": "int8"}, "NumPy backend"),
        (torch_ref.load, {"dtype": "float16"}, "float32"),
        (torch_ref.load, {"device": "tpu"}, "cpu or cuda"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(load, arguments, says):
    with pytest.raises(npgemma.InputError, match=says):
        load(**arguments)


def test_a_model_works_in_another_process(random_folder, image):
    """So do its errors. A process that is spawned begins with nothing but what is pickled."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        ask = functools.partial(npgemma.load(random_folder).generate, max_new_tokens=3)
        assert pool.submit(ask, image).result().token_ids == ask(image).token_ids
        assert "none.png" in str(pool.submit(ask, "none.png").exception())


@pytest.mark.parametrize(("load", "static"), [(npgemma.load, False), (torch_ref.load, True)], ids=LOADERS)
def test_a_pickled_model_is_opened_again_unless_it_was_changed(load, static, random_folder, image):
    model = load(random_folder, dtype="float64", static=static, resize="bilinear")
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    for one in (model, again):
        assert (one.backend.make_cache is load().backend.make_cache) != static
    assert (again.backend.dtype, again.preprocessing) == ("float64", model.preprocessing)
    with torch.no_grad():
        (written := copy.deepcopy(model)).params.text.embedding[5, 3] += 1
    made = npgemma.Model(model.params, model.config, model.backend)
    for changed in (written, made, dataclasses.replace(model, preprocessing=Preprocessing(resample=0))):
        with pytest.raises(npgemma.InputError, match="was changed since, or did not come from load"):
            pickle.dumps(changed)
    assert pickle.loads(pickle.dumps(model)).generate(image).token_ids == model.generate(image).token_ids
