"""The parts of the page, computed from one recorded answer with a mask."""

import dataclasses
from xml.etree import ElementTree

import numpy as np
import pytest
from tour_page import gradients_of, unpacked

import npgemma
from npgemma import Generation, segmentation
from npgemma.answer import find_objects
from npgemma.explain import ablation, attention_mask, diagram, learning, lens
from npgemma.explain.choices import choices
from npgemma.explain.detections import detections
from npgemma.explain.inference import infer
from npgemma.explain.knockouts import knockouts
from npgemma.explain.kv_cache import cache
from npgemma.explain.mask_stages import stages
from npgemma.explain.packing import Pack
from npgemma.explain.token_names import Names
from npgemma.explain.worked import worked
from npgemma.image import load_image
from npgemma.ops import relu, softmax
from npgemma.params import leaves
from npgemma.porting.mistakes.injection import in_decoders
from npgemma.probe.exchange import exchanged


@pytest.fixture(scope="module")
def inference():
    model = npgemma.load(dtype="float64")
    image = load_image(npgemma.example_image(), model.config.vision.image_size)
    return infer(model, image, "segment red circle", {"max_new_tokens": 30})


@pytest.fixture(scope="module")
def found(inference):
    names = Names(inference.model.tokenizer)
    names.add(inference.answer.token_ids)
    [detection] = detections(inference, names, Pack())
    return detection


def test_a_detection_is_the_answers_object(inference, found):
    [expected] = inference.answer.objects
    assert (found["label"], tuple(found["box"])) == (expected.label, expected.box)
    assert found["tokens"] == [0, inference.tokens - 2]
    columns, rows = inference.image.size
    left, top, right, bottom = expected.box
    assert found["shares"].mean() == pytest.approx((right - left) * (bottom - top) / (columns * rows))
    text = "".join(f"<seg{code:03}>" for code in found["codes"])
    assert text in inference.answer.text


def test_boxes_without_area_are_shown_but_are_no_objects(inference):
    flat = "<loc0900><loc0001><loc0001><loc0500> flat ; <loc0001><loc0500><loc0900><loc0500> narrow ; "
    text = flat + "<loc0000><loc0000><loc0100><loc0100><loc0000><loc0000><loc1023><loc1023> all"
    names, ids = Names(inference.model.tokenizer), inference.model.tokenizer.encode(text)
    names.add(ids)
    answer = Generation(text, ids, objects=find_objects(text, inference.image.size))
    shown = detections(dataclasses.replace(inference, answer=answer), names, Pack())
    assert [bool(one["box"]) for one in shown] == [False, False, True, True]
    assert [one["label"] for one in shown] == ["", "", "", "all"]
    assert shown[3]["locations"] == [0, 0, 1023, 1023]
    assert (shown[3]["shares"] == 1).all()


def test_the_stages_of_a_mask_are_those_of_its_decoder(inference, found):
    p, pack = inference.model.mask_params, Pack()
    grids = [unpacked(pack, grid) for grid in stages(found["codes"], p, pack)]
    assert [grid.shape[0] for grid in grids] == [4, 4, 8, 16, 32, 64, 64]
    code_BM = np.array([found["codes"]])
    grid = p.code[code_BM].reshape(1, 4, 4, -1)
    expected = [grid]
    grid = relu(segmentation.convolve(grid, p.first))
    for block in p.blocks:
        grid = segmentation.residual_block(grid, block)
    expected.append(grid)
    for doubling in p.doublings:
        grid = relu(segmentation.convolve_transposed(grid, doubling))
        expected.append(grid)
    for grid, right in zip(grids, expected):
        assert np.array_equal(grid, np.linalg.norm(right[0], axis=-1))
    assert np.array_equal(grids[-1], segmentation.decode_masks(code_BM, p)[0])
    assert stages(found["codes"][1:], p, pack) is None
    assert stages([len(p.code)] * 16, p, pack) is None
    assert stages(found["codes"], None, pack) is None


def test_the_mask_is_that_of_the_whole_sequence(inference):
    pack, prefix, total = Pack(), inference.prefix, inference.prefix + inference.tokens - 1
    place = np.arange(total)
    expected = (place[None] <= place[:, None]) | (place[None] < prefix)
    assert np.array_equal(unpacked(pack, attention_mask.mask(inference.recording.whole, pack)), expected)


def test_choices_have_the_probabilities_of_all_tokens(inference):
    pack, names = Pack(), Names(inference.model.tokenizer)
    shown = choices(inference, names, pack)
    ids, logits, total = (unpacked(pack, shown[key]) for key in ("ids", "logits", "total"))
    assert ids[:, 0].tolist() == inference.answer.token_ids
    for token in range(inference.tokens):
        right = softmax(inference.logits(token))[ids[token]]
        np.testing.assert_allclose(np.exp(logits[token] - total[token]), right, rtol=1e-5)
    assert set(ids[:, :300].ravel()) == set(names.names)


def without(inference, token, hidden):
    """The probability of an answer token where the position that chooses it may not see some others: in one pass."""

    def hiding(module, right):
        def mask(*given):
            mask_BTS = right(*given).copy()
            mask_BTS[:, -1, hidden] = False
            return mask_BTS

        return mask

    model, ids = inference.model, inference.answer.token_ids
    text = [[*inference.prompt_ids, *ids[:token]]]
    with exchanged(in_decoders("prefix_lm", hiding) | {"gemma2.sliding_window": hiding}):
        logits = model.logits(inference.image.pixels_BYXC, text, len(inference.prompt_ids))[0, -1]
    return softmax(logits[: model.tokenizer.size].astype(np.float64))[ids[token]]


@pytest.fixture(params=["Gemma", "Gemma 2"])
def either(request, inference):
    """The inference of either decoder."""
    if request.param == "Gemma":
        return inference
    model = npgemma.load(request.getfixturevalue("gemma_2_folder"), dtype="float64")
    image = load_image(npgemma.example_image(), model.config.vision.image_size)
    return infer(model, image, "ocr", {"max_new_tokens": 6})


# Not the first token: where a token of the prefix changes, one pass changes those that attend to it as well.
@pytest.mark.parametrize("token", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_knock_outs_are_those_of_one_pass_without_a_cache(either, token):
    pack, patches, prefix = Pack(), either.patches, either.prefix
    shares = np.arange(patches) / patches
    shown = knockouts(either, [{"box": None}, {"box": [0, 0, 9, 9], "shares": shares}], pack)
    assert shown["groups"] == ["image", "bos", "prompt", "answer", "object.1"]
    probability, region = unpacked(pack, shown["probability"])[token], unpacked(pack, shown["region"])
    hidden = [[], *(np.flatnonzero(region == i) for i in range(shown["side"] ** 2))]
    hidden += [range(patches), [patches], range(patches + 1, prefix), range(prefix, prefix + token)]
    hidden += [np.flatnonzero(shares >= 0.5)]
    assert len(probability) == len(hidden)
    for place in (0, 1, *range(len(hidden) - 5, len(hidden))):
        others = [i for i in hidden[place] if i < prefix + token - 1]  # the newest token is never hidden
        assert probability[place] == pytest.approx(without(either, token, others), rel=1e-6), place


def test_the_cache_has_a_row_for_every_token_that_was_read(inference):
    pack = Pack()
    shown = cache(inference, pack)
    assert (shown["prefill"], shown["held"]) == (inference.prefix, inference.prefix + inference.tokens - 1)
    for layer, keys in enumerate(shown["keys"]):
        levels, key_SKH = unpacked(pack, keys), inference.past(inference.tokens - 1, layer, "k_BTKH")
        assert len(levels) == len(key_SKH) == shown["held"]
        key_SC = key_SKH.reshape(len(key_SKH), -1)
        edges = np.arange(1, levels.shape[1]) * key_SC.shape[1] // levels.shape[1]
        means = np.stack([part.mean(axis=1) for part in np.split(key_SC, edges, axis=1)], axis=1)
        expected = (means - means.min()) / (means.max() - means.min()) * 255
        np.testing.assert_allclose(levels, expected, atol=0.51)
    assert shown["numbers"] == 2 * inference.layers * key_SC.shape[1]
    assert shown["bytes_each"] == 8


def test_the_lens_applies_the_output_head_to_every_layer(inference, monkeypatch):
    pack, names, first = Pack(), Names(inference.model.tokenizer), inference.prefix - 1
    shown = lens.lens(inference, names, pack)
    ids, probabilities = unpacked(pack, shown["ids"]), unpacked(pack, shown["probabilities"])
    assert shown["first"] == 0
    assert ids[first:, -1, 0].tolist() == inference.answer.token_ids
    for token in range(inference.tokens):
        best = softmax(inference.logits(token))[ids[first + token, -1]]
        np.testing.assert_allclose(probabilities[first + token, -1], best, atol=1e-6)
    for layer, place in enumerate(["x_BTD", "block.0/out_BTD", "block.1/out_BTD"]):
        state_TD = inference.recording.whole[f"step.2/run_blocks.0/{place}"][0]
        expected = softmax(lens.logits_of(inference, state_TD))[0]
        assert ids[first + 3, layer].tolist() == np.argsort(-expected, kind="stable")[:5].tolist()
    monkeypatch.setattr(lens, "LARGE", 0)
    shown = lens.lens(inference, names, pack)
    assert shown["first"] == first
    assert np.array_equal(unpacked(pack, shown["ids"]), ids[first:])


def test_answers_under_a_mistake_say_whether_they_are_the_same(inference, monkeypatch):
    """Gemma 1 has no cap that could be missing."""
    monkeypatch.setattr(ablation, "SHOWN", ("no-attention-softcap", "no-vision-positions"))
    names, noted = Names(inference.model.tokenizer), []
    shown = ablation.answers(inference, names, {}, noted.append)
    assert [one["same"] for one in shown] == [True, False]
    assert shown[0]["ids"] == inference.answer.token_ids
    assert [one["id"] for one in shown] == noted


def test_the_worked_head_gives_what_was_recorded(either):
    pack, text = Pack(), either.model.config.text
    kept = worked(either, [], Names(either.model.tokenizer), pack)
    every = [(token, facts) for token, one in enumerate(kept) for facts in one["heads"].values()]
    assert len(every) == either.tokens * either.layers * text.query_heads
    for token, facts in every[::19]:
        layer, head = facts["layer"], facts["head"]
        names = "query", "key", "scores", "mixed", "plain", "plain_key"
        query, key, scores, mixed, plain, plain_key = (unpacked(pack, facts[name]) for name in names)
        weights = either.attention(token)[layer, head]
        np.testing.assert_allclose(softmax(scores.astype("float64")), weights, atol=1e-6)
        shared = head // (text.query_heads // text.key_value_heads)
        np.testing.assert_allclose(weights @ either.past(token, layer, "v_BTKH")[:, shared], mixed, atol=1e-5)
        places = either.prefix - 1 + token, scores.argmax()
        for pair, place, turned in zip((plain, plain_key), places, (query, key)):
            rotated = complex(*pair) * np.exp(1j * place * facts["speed"])
            np.testing.assert_allclose([rotated.real, rotated.imag], turned[facts["pair"]], atol=1e-5)
        assert facts["gate"] * facts["up"] == pytest.approx(facts["product"])


def test_the_gradients_are_those_of_each_token_alone(either, monkeypatch):
    monkeypatch.setattr(learning, "TOKENS", 2)
    pack, ids = Pack(), either.answer.token_ids
    shown = learning.learning(either, pack)
    losses, patches, norms = (unpacked(pack, shown[name]) for name in ("loss", "patches", "norms"))
    assert len(losses) == len(patches) == len(norms) == 2
    for token in range(2):
        loss, by_patch, by_name = gradients_of(either.model, either.image.pixels_BYXC, either.prompt, ids, token)
        # Training counts the rows of the vocabulary that stand for no token, too.
        chances = softmax(either.recording.whole[f"{either.call(token)}/logit_BV"][0])
        np.testing.assert_allclose([loss, -np.log(chances[ids[token]])], losses[token], rtol=1e-6)
        np.testing.assert_allclose(patches[token], by_patch, rtol=1e-5)
        np.testing.assert_allclose(norms[token], [by_name[name] for name in shown["names"]], rtol=1e-5)
    assert len(shown["names"]) == 3 + 6 * either.model.config.vision.layers + 7 * either.layers


def test_gradients_of_narrow_weights_are_calculated_in_float32_and_of_large_models_left_out(inference, monkeypatch):
    models = [learning.in_numpy(npgemma.load(dtype=dtype)) for dtype in ("bfloat16", "int8")]
    assert {str(weight.dtype) for model in models for _, _, weight in leaves(model.params)} == {"float32"}
    monkeypatch.setattr(learning, "PARAMETERS", 1000)
    assert "are calculated for up to 1,000" in learning.learning(inference, Pack())["left_out"]


def test_a_label_from_outside_is_text_in_the_diagram(inference):
    [detection] = inference.answer.objects
    odd = dataclasses.replace(detection, label='<b>"&\x1b[31m')
    answer = dataclasses.replace(inference.answer, objects=[odd])
    changed = dataclasses.replace(inference, answer=answer)
    drawn = ElementTree.fromstring(diagram.figure(changed, 3))
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert '<b>"&\\u001b[31m' in texts
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}b"))) == 0
    items = ElementTree.fromstring(f"<ol>{diagram.links(changed)}</ol>")
    assert [item.get("href") for item in items.iter("a")] == [f"#{section}" for section, _ in diagram.STAGES.values()]
