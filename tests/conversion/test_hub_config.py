"""hub_config.py: the hub's files as they are, and files that cannot be."""

import copy

import pytest
from support import CONFIGS

from conversion.hub_config import from_hub, to_hub
from npgemma.config import PUBLISHED
from npgemma.errors import InputError
from npgemma.params import declared

# config.json of google/paligemma-3b-pt-224 as far as copies of it show: note how much it leaves out.
HUB_224 = {
    "architectures": ["PaliGemmaForConditionalGeneration"],
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "hidden_size": 2048,
    "ignore_index": -100,
    "image_token_index": 257152,
    "model_type": "paligemma",
    "projection_dim": 2048,
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "model_type": "gemma",
        "num_attention_heads": 8,
        "num_hidden_layers": 18,
        "num_image_tokens": 256,
        "num_key_value_heads": 1,
        "torch_dtype": "float32",
        "vocab_size": 257216,
    },
    "torch_dtype": "float32",
    "transformers_version": "4.41.0.dev0",
    "vocab_size": 257216,
    "vision_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "num_image_tokens": 256,
        "patch_size": 14,
        "projection_dim": 2048,
        "projector_hidden_act": "gelu_fast",
        "vision_use_head": False,
    },
}


def changed(path, value):
    """The hub's file with one entry replaced, or removed if the value is None."""
    document = copy.deepcopy(HUB_224)
    *parents, last = path.split(".")
    part = document
    for name in parents:
        part = part[name]
    part[last] = value
    if value is None:
        del part[last]
    return document


def test_the_hubs_omissions_are_filled_in():
    assert from_hub(HUB_224) == PUBLISHED["paligemma-3b-224"]


@pytest.mark.parametrize(("size", "tokens"), [(448, 1024), (896, 4096)])
def test_larger_images(size, tokens):
    config = from_hub(changed("vision_config.image_size", size))
    assert config == PUBLISHED[f"paligemma-3b-{size}"]
    assert config.image_tokens == tokens


def test_published_parameter_counts():
    """Keras Hub's published count for 224 pixels, plus the 64 rows by which the hub pads the embedding table."""
    count = 0
    for leaf in declared(PUBLISHED["paligemma-3b-224"]):
        size = 1
        for length in leaf.shape:
            size *= length
        count += size
    assert count == 2_923_335_408 + 64 * 2048


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_read_back(name):
    assert from_hub(to_hub(CONFIGS[name])) == CONFIGS[name]


def test_rotary_base_in_the_newer_place():
    document = changed("text_config.rope_parameters", {"rope_type": "default", "rope_theta": 5000.0})
    assert from_hub(document).text.rope_theta == 5000.0


def test_paligemma_2_is_refused_by_name():
    with pytest.raises(InputError, match="PaliGemma 2"):
        from_hub(changed("text_config.model_type", "gemma2"))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model_type", "llava", "'llava'"),
        ("model_type", None, "paligemma"),
        ("text_config", None, "text_config"),
        ("text_config", [], "text_config"),
        ("text_config.model_type", "llama", "llama"),
        ("text_config.hidden_activation", "silu", "silu"),
        ("text_config.rope_scaling", {"type": "linear"}, "rope_scaling"),
        ("text_config.rope_parameters", 7, "rope_parameters"),
        ("text_config.rope_parameters", {"rope_type": "yarn"}, "yarn"),
        ("text_config.attention_bias", True, "attention_bias"),
        ("text_config.num_hidden_layers", 0, "num_hidden_layers"),
        ("text_config.num_hidden_layers", -1, "num_hidden_layers"),
        ("text_config.num_hidden_layers", 18.0, "num_hidden_layers"),
        ("text_config.num_hidden_layers", True, "num_hidden_layers"),
        ("text_config.num_hidden_layers", "18", "num_hidden_layers"),
        ("text_config.num_hidden_layers", 10**7, "num_hidden_layers"),
        ("text_config.hidden_size", 10**12, "hidden_size"),
        ("text_config.num_key_value_heads", 3, "key/value heads"),
        ("text_config.head_dim", 255, "head_dim"),
        ("text_config.vocab_size", 1, "vocabulary"),
        ("text_config.rms_norm_eps", 0, "rms_norm_eps"),
        ("text_config.rms_norm_eps", float("nan"), "rms_norm_eps"),
        ("text_config.rope_theta", -1.0, "rope_theta"),
        ("text_config.rope_theta", 10**400, "rope_theta"),
        ("vision_config.layer_norm_eps", 1e308, "layer_norm_eps"),
        ("text_config.max_position_embeddings", 256, "context"),
        ("vision_config.num_attention_heads", 7, "heads"),
        ("vision_config.patch_size", 225, "patch"),
        ("vision_config.image_size", 10**6, "context"),
        ("vision_config.num_channels", 1, "num_channels"),
        ("vision_config.hidden_act", "gelu", "hidden_act"),
        ("projection_dim", 1024, "projection_dim"),
        ("eos_token_id", 10**6, "special token"),
        ("eos_token_id", [1, 107], "eos_token_id"),
        ("image_token_index", "no", "image_token_index"),
    ],
)
def test_a_config_that_cannot_be_is_refused(path, value, says):
    with pytest.raises(InputError, match=says):
        from_hub(changed(path, value))


@pytest.mark.parametrize("document", [[], "paligemma", 3, None])
def test_a_file_that_is_no_object_is_refused(document):
    with pytest.raises(InputError, match="object"):
        from_hub(document)
