"""Hugging Face's PaliGemma itself, where it is installed: other weights than the goldens', and the goldens again."""

import dataclasses
import importlib
import json
import pathlib

import numpy as np
import PIL
import pytest
import torch
from safetensors.numpy import load_file

import npgemma
import torch_ref
from conversion.hub_config import FAMILIES, VISION, from_hub, to_hub
from conversion.layout import stored_leaves
from npgemma.config import PUBLISHED
from npgemma.image import load_pixels
from npgemma.machinery.backend import to_numpy
from npgemma.porting.difference import relative_l2

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'npgemma[oracle]'")

GOLDEN = pathlib.Path(__file__).parent / "golden"
VARIANTS = [
    "hub", "grouped_padded", "bfloat16_shards", "float16_small", "two_images", "gemma2_window", "gemma2_hub",
]  # fmt: skip
# As in test_golden.py. Largest seen 1.2e-5, over six seeds of each variant.
LOGITS = 3e-5


@pytest.fixture(scope="module")
def make():
    transformers.utils.logging.disable_progress_bar()
    make = importlib.import_module("golden.make")
    if transformers.__version__ != make.pinned():
        pytest.skip(f"needs transformers {make.pinned()}, found {transformers.__version__}")
    return make


@pytest.fixture(scope="module", params=["grouped_padded", "float16_small", "gemma2_window", "gemma2_hub"])
def other(request, make, tmp_path_factory):
    """A model of a variant's sizes with other weights, saved by Hugging Face's own hand, and what it computes."""
    variant = dataclasses.replace(make.VARIANTS[request.param], seed=9001, naming="5 saved")
    folder = tmp_path_factory.mktemp(request.param)
    make.save(make.build(variant), variant, folder)
    return folder, max(variant.prompts), make.expected(folder, variant)


@pytest.fixture(params=[npgemma, torch_ref], ids=["numpy", "torch"])
def backend(request):
    return request.param


def test_logits_of_a_fresh_model(other, backend):
    folder, prefix, asked = other
    pixels = asked["pixels"].astype(np.float32) / np.float32(127.5) - 1
    found = to_numpy(backend.load(folder).logits(pixels, asked["ids"], prefix, asked["valid"]))
    expected = asked["logits.0/logit_BSV"]
    real = np.pad(asked["valid"], ((0, 0), (expected.shape[1] - asked["valid"].shape[1], 0)), constant_values=True)
    assert np.abs(found - expected)[real].max() < LOGITS * expected[real].std()


def test_greedy_answer_of_a_fresh_model(other, backend):
    folder, prefix, asked = other
    model = backend.load(folder)
    ids, valid = (model.backend.to_array(asked[name][:, :prefix]) for name in ("ids", "valid"))
    pixels = model.backend.to_activation(asked["pixels"].astype(np.float32) / np.float32(127.5) - 1)
    encode = model.backend.encode_images if pixels.ndim == 5 else model.backend.encode_image
    image = encode(pixels, model.params, model.config)
    most = asked["tokens"].shape[1]
    tokens = model.backend.generate(image, ids, valid, model.params, model.config, model.backend.greedy, most)
    found = np.stack([to_numpy(token) for token in tokens], axis=1)
    np.testing.assert_array_equal(found, asked["tokens"][:, : found.shape[1]])
    assert (asked["tokens"][:, found.shape[1] :] == model.config.pad_token).all()


@pytest.mark.parametrize("family", [1, 2])
def test_scores_of_given_answers(make, family, backend, gemma_2_folder, image):
    """Of the embedded checkpoint, and of random weights of a PaliGemma 2."""
    folder = gemma_2_folder if family == 2 else npgemma.embedded_checkpoint()
    model, theirs = backend.load(folder), make.load(folder)
    prompt, text = model.tokenizer.prompt("caption en"), "a small red circle"
    answer = [*model.tokenizer.encode(text), model.tokenizer.eos]
    pixels, ids = load_pixels(image, model.config.vision.image_size), np.array([prompt + answer])
    asked = {"pixels": ((pixels + 1) * 127.5).round(), "ids": ids, "valid": ids >= 0}
    with torch.no_grad():
        logit_TV = theirs(**make.hugging_face_inputs(theirs, asked, len(prompt))).logits[0].double()
    expected = torch.log_softmax(logit_TV, dim=-1)[-len(answer) - 1 : -1][range(len(answer)), answer]
    # Down to -10; largest difference seen 4.7e-6.
    np.testing.assert_allclose(model.score(image, "caption en", ["", text])[1], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_script_makes_the_golden_files_again(make, name, tmp_path):
    variant = make.VARIANTS[name]
    make.save(make.build(variant), variant, tmp_path)
    kept = sorted(file.name for file in (GOLDEN / name).iterdir())
    assert sorted([*(file.name for file in tmp_path.iterdir()), "expected.safetensors"]) == kept
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (GOLDEN / name / file.name).read_bytes(), file.name
    stored, again = load_file(GOLDEN / name / "expected.safetensors"), make.expected(tmp_path, variant)
    assert stored.keys() == again.keys()
    for key, array in stored.items():
        # Bit for bit on the machine that made them; another processor may round otherwise.
        assert relative_l2(array, again[key]) < 1e-5, key


def test_the_script_makes_the_other_golden_files_again(make):
    stored, again = load_file(GOLDEN / "sampling.safetensors"), make.sampling()
    for key, array in stored.items():
        np.testing.assert_allclose(again[key], array, rtol=1e-6, err_msg=key)
    about = json.loads((GOLDEN / "about.json").read_text())
    assert about["variants"] == make.about()["variants"]
    if about["pillow"] != PIL.__version__:
        pytest.skip(f"images: made with Pillow {about['pillow']}, found {PIL.__version__}")
    stored, again = load_file(GOLDEN / "images.safetensors"), make.images()
    for key, array in stored.items():
        np.testing.assert_array_equal(again[key], array, err_msg=key)


BARE = {
    "model_type": "paligemma",
    "vision_config": {"model_type": "siglip_vision_model"},
}


@pytest.mark.parametrize("name", [*VARIANTS, *FAMILIES])
def test_config_is_read_as_hugging_face_reads_it(name):
    """The families say nothing but what kind of model they are, so that every default is compared."""
    if name in FAMILIES:
        document = BARE | {"text_config": {"model_type": name}, "projection_dim": FAMILIES[name][1]["width"][1]}
    else:
        document = json.loads((GOLDEN / name / "config.json").read_text())
    ours, theirs = from_hub(document), transformers.PaliGemmaConfig.from_dict(document)
    text = FAMILIES[document["text_config"]["model_type"]][1]
    for tower, other, names in ((ours.vision, theirs.vision_config, VISION), (ours.text, theirs.text_config, text)):
        assert set(names) == {entry.name for entry in dataclasses.fields(tower)}
        for field, (hub, _) in names.items():
            expected = other.rope_parameters[hub] if hub == "rope_theta" else getattr(other, hub)
            expected = tuple(expected) if isinstance(expected, list) else expected
            assert getattr(tower, field) == expected, hub
    if name not in FAMILIES:
        special = (theirs.image_token_id, theirs.pad_token_id, theirs.bos_token_id)
        assert (ours.image_token, ours.pad_token, ours.bos_token) == special
        assert ours.eos_tokens[0] == theirs.eos_token_id


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_every_published_size_are_hugging_faces(make, name):
    """Of its own model, made without memory; written as the hub's files write them."""
    with torch.device("meta"):
        model = transformers.PaliGemmaForConditionalGeneration(
            transformers.PaliGemmaConfig.from_dict(to_hub(PUBLISHED[name]))
        )
    theirs = {make.rename(name, "hub"): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs.pop(None, None)
    assert {leaf.stored_name: leaf.stored_shape for leaf in stored_leaves(PUBLISHED[name]).values()} == theirs
