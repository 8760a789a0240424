"""The third witness: both backends against what Hugging Face computed, from files made by ``tests/golden/make.py``."""

import functools
import importlib
import json
import math
import pathlib

import numpy as np
import PIL
import pytest
from safetensors.numpy import load_file, save_file

import conversion
import npgemma
import npgemma.gemma
import npgemma.gemma2
from conversion import safetensors_file
from npgemma.config import FULL, Gemma2Config
from npgemma.fast import bfloat16
from npgemma.image import load_pixels
from npgemma.machinery.backend import to_numpy
from npgemma.params import leaves
from npgemma.porting.difference import relative_l2

GOLDEN = pathlib.Path(__file__).parent / "golden"
ABOUT = json.loads((GOLDEN / "about.json").read_text())
VARIANTS = list(ABOUT["variants"])

# The largest difference of float32 logits over the golden logits' standard deviation. Largest seen 1.7e-5 (torch,
# float16_small); our float64 is 1.0e-5 away, so much of it is Hugging Face's own rounding (its angles are float32).
LOGITS = 3e-5
# Relative L2 of every other array. Largest seen 3.9e-6 (numpy, hub, weights of the second vision block).
ARRAYS = 1e-5


@pytest.fixture(params=["numpy", "torch"])
def backend(request):
    return load_backend(request.param)


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


def load_backend(name):
    return npgemma if name == "numpy" else pytest.importorskip("torch") and importlib.import_module("torch_ref")


@functools.cache
def golden(variant):
    return load_file(GOLDEN / variant / "expected.safetensors")


@functools.cache
def load(backend, variant, dtype="float32"):
    return backend.load(GOLDEN / variant, dtype=dtype)


def pixels(variant):
    return golden(variant)["pixels"].astype(np.float32) / np.float32(127.5) - 1


def arguments(variant):
    asked = golden(variant)
    return pixels(variant), asked["ids"], ABOUT["variants"][variant]["prefix"], asked["valid"]


def real(name, array, valid):
    """Put zeros where a token of the decoder is padding, as the golden files have it; what it computes is free."""
    letters = name.rpartition("_")[2]
    if not name.startswith("logits"):
        return array
    token = letters.index("T" if "T" in letters else "S")
    image = array.shape[token] - valid.shape[1]
    flags = np.pad(valid, ((0, 0), (image, 0)), constant_values=True)
    return array * flags.reshape([size if axis in (0, token) else 1 for axis, size in enumerate(array.shape)])


def logits_apart(model, variant):
    """The largest difference of logits, over the standard deviation of the golden ones."""
    name, expected = "logits.0/logit_BSV", golden(variant)["logits.0/logit_BSV"]
    found = real(name, to_numpy(model.logits(*arguments(variant))), golden(variant)["valid"])
    return np.abs(found - expected).max() / expected.std()


def test_logits_are_hugging_faces(backend, variant):
    assert logits_apart(load(backend, variant), variant) < LOGITS


def test_matrices_held_as_bfloat16_bits_give_the_logits_of_a_bfloat16_file():
    assert logits_apart(load(npgemma, "bfloat16_shards", "bfloat16"), "bfloat16_shards") < LOGITS


def test_every_activation_is_hugging_faces(backend, variant):
    with npgemma.record() as trace:
        load(backend, variant).logits(*arguments(variant))
    expected = {name: array for name, array in golden(variant).items() if "/" in name}
    apart = {n: relative_l2(e, real(n, trace[n], golden(variant)["valid"])) for n, e in expected.items()}
    worst = max(apart, key=apart.get)
    assert apart[worst] < ARRAYS, f"{worst}: {apart[worst]:.2e}"
    config = load(backend, variant).config
    # Of the whole model, of each vision block, of each decoder block; arrays over 100 kB are not stored.
    assert len(apart) >= 6 + 4 * config.vision.layers + 4 * config.text.layers


def answer(model, variant):
    """Our greedy answer to the golden prompts: the tokens, and the logits they were chosen by."""
    asked, prefix, logits = golden(variant), ABOUT["variants"][variant]["prefix"], []
    ids, valid = (model.backend.to_array(asked[name][:, :prefix]) for name in ("ids", "valid"))
    encode = model.backend.encode_images if pixels(variant).ndim == 5 else model.backend.encode_image
    image = encode(model.backend.to_activation(pixels(variant)), model.params, model.config)

    def choose(logit_BV):
        logits.append(to_numpy(logit_BV))
        return model.backend.greedy(logit_BV)

    most = asked["tokens"].shape[1]
    tokens = list(model.backend.generate(image, ids, valid, model.params, model.config, choose, most))
    return np.stack([to_numpy(token) for token in tokens], axis=1), np.stack(logits, axis=1)


def token_logits_apart(model, variant):
    """The largest difference of the logits that chose a token, over the standard deviation of the golden ones."""
    expected, found = golden(variant)["token_logits"], answer(model, variant)[1]
    ended = np.cumsum(np.isin(golden(variant)["tokens"], model.config.eos_tokens), axis=1) > 0
    running = ~np.pad(ended, ((0, 0), (1, 0)))[:, :-1]  # what follows <eos> is free
    return np.abs(found - expected)[running].max() / expected.std()


def test_greedy_answers_are_hugging_faces(backend, variant):
    tokens, _ = answer(load(backend, variant), variant)
    np.testing.assert_array_equal(tokens, golden(variant)["tokens"])


def test_logits_of_cached_steps_are_hugging_faces(backend, variant):
    assert token_logits_apart(load(backend, variant), variant) < LOGITS


def test_the_goldens_catch_an_answer_that_starts_at_the_prompts_last_position(monkeypatch):
    """Transformers 4.41 had this mistake; a pass without a cache cannot show it."""
    right = npgemma.gemma.positions
    for decoder in (npgemma.gemma, npgemma.gemma2):
        monkeypatch.setattr(decoder, "positions", lambda valid, new: right(valid, new) - (new == 1))
    assert all(token_logits_apart(load(npgemma, variant), variant) > 2 * LOGITS for variant in VARIANTS)


def test_some_golden_answers_end_before_others():
    for variant in ("grouped_padded", "bfloat16_shards", "gemma2_window"):
        tokens, eos = golden(variant)["tokens"], load(npgemma, variant).config.eos_tokens
        assert len(set(np.isin(tokens, eos).any(axis=1))) == 2, "one row should end while another runs on"


def test_what_the_hubs_config_leaves_out_is_supplied():
    document = json.loads((GOLDEN / "hub" / "config.json").read_text())
    assert not {"head_dim", "rms_norm_eps", "rope_theta", "max_position_embeddings"} & set(document["text_config"])
    assert not {"image_size", "layer_norm_eps", "num_channels", "hidden_act"} & set(document["vision_config"])
    config = load(npgemma, "hub").config
    assert (config.text.head_width, config.vision.image_size, config.image_tokens) == (256, 224, 64)


def test_the_golden_models_are_what_they_stand_for():
    """Of PaliGemma 2: all that Gemma 2 adds matters, and the top level of the hub's file is another model's."""
    for variant in ("gemma2_window", "gemma2_hub"):
        text, asked = load(npgemma, variant).config.text, golden(variant)
        assert isinstance(text, Gemma2Config)
        suffix = asked["ids"].shape[1] - ABOUT["variants"][variant]["prefix"]
        assert text.sliding_window < suffix <= asked["tokens"].shape[1] + 1
        assert text.query_pre_attn_scalar != text.head_width
        assert text.query_heads > text.key_value_heads > 1
        assert np.abs(asked["logits.0/logit_BSV"]).max() > text.final_softcap * 0.8
        assert not asked["valid"].all()
    assert load(npgemma, "gemma2_window").config.text.layer_types[0] == FULL
    document = json.loads((GOLDEN / "gemma2_hub" / "config.json").read_text())
    assert document["hidden_size"] != document["text_config"]["hidden_size"] == document["projection_dim"]
    assert golden("two_images")["pixels"].shape[:2] == golden("gemma2_hub")["pixels"].shape[:2] == (2, 2)


# How each generation of Hugging Face's files spells what the hub's spell so.
PLACES = ("language_model.model.", "vision_tower.vision_model.", "multi_modal_projector.")
NAMINGS = {
    "hub": PLACES,
    "4.52": ("model.language_model.", "model.vision_tower.vision_model.", "model.multi_modal_projector."),
    "5": ("model.language_model.", "model.vision_tower.", "model.multi_modal_projector."),
    "5 saved": ("language_model.model.", "vision_tower.", "multi_modal_projector."),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_generation_of_names_gives_the_same_tree(naming, tmp_path):
    stored = {tensor.name: tensor.array for tensor in safetensors_file.read(GOLDEN / "hub" / "model.safetensors")}
    renamed = {}
    for name, array in stored.items():
        place, new = next((place, new) for place, new in zip(PLACES, NAMINGS[naming]) if name.startswith(place))
        renamed[new + name.removeprefix(place)] = array
    if naming == "4.52":
        renamed["lm_head.weight"] = stored["language_model.model.embed_tokens.weight"]
    save_file(renamed, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((GOLDEN / "hub" / "config.json").read_bytes())
    params, _ = conversion.read_folder(tmp_path)
    for (name, _, expected), (_, _, found) in zip(leaves(load(npgemma, "hub").params), leaves(params)):
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_the_variants_have_the_names_they_stand_for(variant):
    names = [t.name for file in (GOLDEN / variant).glob("model*.safetensors") for t in safetensors_file.read(file)]
    naming = ABOUT["variants"][variant]["tensor names"].removesuffix(" with sizes")
    assert all(any(name.startswith(place) for name in names) for place in NAMINGS[naming])
    assert ("lm_head.weight" in names) == (naming == "4.52")


@pytest.mark.parametrize("name", ["landscape", "portrait", "dot", "larger"])
def test_pixels_are_those_of_hugging_faces_image_processor(name):
    images = load_file(GOLDEN / "images.safetensors")
    found, expected = load_pixels(images[name], 28), images[name + "_pixels"]
    if PIL.__version__.partition(".")[0] == ABOUT["pillow"].partition(".")[0]:
        np.testing.assert_array_equal(found, expected)
    # Pillow 13 resizes tall images in another order than 12, and rounds after each direction.
    assert np.abs(found - expected).max() * 127.5 < 2.01


def test_sampling_draws_from_hugging_faces_probabilities(backend):
    stored, points = load_file(GOLDEN / "sampling.safetensors"), 5000
    model = load(backend, "hub")
    uniform = model.backend.to_array((np.arange(points) + 0.5) / points)
    for (temperature, top_k, top_p), probabilities in zip(stored["settings"], stored["probabilities"]):
        for row, expected in zip(stored["logits"], probabilities):
            logits = model.backend.to_array(np.tile(row, (points, 1)))
            ids = to_numpy(model.backend.sample(logits, uniform, temperature, int(top_k) or None, top_p))
            share = np.bincount(ids, minlength=len(row)) / points
            assert not share[expected == 0].any(), "a token that Hugging Face leaves out was drawn"
            # An interval of length p holds p times the points, give or take one.
            assert np.abs(share - expected).max() <= 1.01 / points


# Mistakes that porters make, each as: module of npgemma, name in it, the wrong function made from the right one.
def other_epsilon(right):
    return lambda x, p, epsilon: right(x, p, 1e-5)


def erf_gelu(right):
    erf = np.vectorize(math.erf)
    return lambda x: (0.5 * x * (1 + erf(x / math.sqrt(2)))).astype(x.dtype)


def interleaved(right):
    def rotate(x_BTNH, angle_BTh):
        halves = np.concatenate([x_BTNH[..., ::2], x_BTNH[..., 1::2]], axis=-1)
        turned = right(halves, angle_BTh)
        return np.stack(np.split(turned, 2, axis=-1), axis=-1).reshape(x_BTNH.shape)

    return rotate


def heads_dealt_out(right):
    def attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS):
        k, v = (np.tile(x, (1, 1, q_BTNH.shape[2] // x.shape[2], 1)) for x in (k_BSKH, v_BSKH))
        return right(q_BTNH, k, v, mask_BTS)

    return attend


def scaled_by_width(right):
    def attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS):
        width_per_head = 20 / q_BTNH.shape[2]  # of grouped_padded; its head width is 14
        return right(q_BTNH * math.sqrt(q_BTNH.shape[3] / width_per_head), k_BSKH, v_BSKH, mask_BTS)

    return attend


def swapped_gate(right):
    def geglu(x_BTD, p):
        return right(x_BTD, type(p)(gate=p.up, up=p.gate, down=p.down))

    return geglu


def values_from_key_weights(right):
    def attention(x_BTD, angle_BTh, mask_BTS, p, cache=None):
        return right(x_BTD, angle_BTh, mask_BTS, type(p)(q=p.q, k=p.k, v=p.k, o=p.o), cache)

    return attention


def scaled_image(right):
    return lambda features_BPE, p: right(features_BPE, p) / math.sqrt(p.linear.shape[1])


def coarse_scale(right):
    """In bfloat16 the square root has three digits."""

    def embed(ids_BT, p):
        exact = np.array([math.sqrt(p.embedding.shape[1])])
        coarse = bfloat16.widen(bfloat16.narrow(exact))
        return right(ids_BT, p) * (coarse / exact).astype(np.float32)

    return embed


MISTAKES = {
    "LayerNorm with torch's epsilon": ("siglip", "layer_norm", other_epsilon),
    "RMSNorm with torch's epsilon": ("gemma", "rms_norm", other_epsilon),
    "exact GELU in the vision tower": ("siglip", "gelu", erf_gelu),
    "exact GELU in the decoder": ("gemma", "gelu", erf_gelu),
    "w for 1 + w": ("gemma", "rms_norm", lambda right: lambda x, w, epsilon: right(x, w - 1, epsilon)),
    "causal prefix": ("gemma", "prefix_lm", lambda right: lambda prefix, valid, new: right(prefix & False, valid, new)),
    "everything bidirectional": (
        "gemma",
        "prefix_lm",
        lambda right: lambda prefix, valid, new: right(prefix | True, valid, new),
    ),
    "padding can be seen": (
        "gemma",
        "prefix_lm",
        lambda right: lambda prefix, valid, new: right(prefix, valid | True, new),
    ),
    "padding takes positions": ("gemma", "positions", lambda right: lambda valid, new: right(valid | True, new)),
    "neighbours rotated together": ("gemma", "rotate", interleaved),
    "query heads dealt out to keys": ("gemma", "attend", heads_dealt_out),
    "scores divided by the root of width / heads": ("gemma", "attend", scaled_by_width),
    "gate and up swapped": ("gemma", "geglu", swapped_gate),
    "values from the keys' weights": ("gemma", "grouped_query_attention", values_from_key_weights),
    "text not scaled": ("gemma", "embed_tokens", lambda right: lambda ids, p: p.embedding[ids]),
    "text scaled in bfloat16": ("gemma", "embed_tokens", coarse_scale),
    "image scaled too": ("paligemma", "project", scaled_image),
    "image transposed": ("siglip", "patchify", lambda right: lambda x, size: right(x.swapaxes(1, 2), size)),
    "blue first": ("siglip", "patchify", lambda right: lambda x, size: right(x[..., ::-1], size)),
    "patches read down the columns": (
        "siglip",
        "patchify",
        lambda right: lambda x, size: right(x.swapaxes(1, 2), size).swapaxes(3, 4),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_goldens_catch_the_mistake(mistake, monkeypatch):
    module, name, make_wrong = MISTAKES[mistake]
    module = importlib.import_module(f"npgemma.{module}")
    monkeypatch.setattr(module, name, make_wrong(getattr(module, name)))
    apart = {variant: logits_apart(load(npgemma, variant), variant) for variant in VARIANTS}
    # Twice the bound: a mistake must not hide in its margin.
    assert max(apart.values()) > 2 * LOGITS, apart
