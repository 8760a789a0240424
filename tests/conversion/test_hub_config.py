"""hub_config.py: the hub's files as they are, and files that cannot be."""

import copy
import math

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


def changed(path, value, hub=HUB_224):
    """A hub's file with one entry replaced, or removed if the value is None."""
    document = copy.deepcopy(hub)
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


# config.json of google/paligemma2-3b-pt-224 as far as copies show: its top level repeats sizes of PaliGemma 1.
HUB_2_224 = {
    "architectures": ["PaliGemmaForConditionalGeneration"],
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "hidden_size": 2048,
    "image_token_index": 257152,
    "model_type": "paligemma",
    "num_hidden_layers": 26,
    "projection_dim": 2304,
    "text_config": {
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "eos_token_id": [1, 107],
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "model_type": "gemma2",
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_image_tokens": 256,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "torch_dtype": "bfloat16",
        "vocab_size": 257216,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.46.0.dev0",
    "vision_config": HUB_224["vision_config"] | {"projection_dim": 2304},
}


def test_the_hubs_paligemma_2_is_read_with_its_stale_top_level():
    assert from_hub(HUB_2_224) == PUBLISHED["paligemma2-3b-224"]


@pytest.mark.parametrize(("value", "written"), [(12.0, "12"), (12.5, "12.5"), (144, "144")])
def test_a_number_that_is_no_count_may_have_a_fraction(value, written):
    config = from_hub(changed("text_config.query_pre_attn_scalar", value, HUB_2_224))
    assert config.text.query_pre_attn_scalar == value
    assert str(to_hub(config)["text_config"]["query_pre_attn_scalar"]) == written
    assert from_hub(changed("text_config.rope_scaling", {"type": "default"})) == PUBLISHED["paligemma-3b-224"]


def test_layer_types_are_the_configs():
    kinds = ["full_attention"] * 20 + ["sliding_attention"] * 6
    config = from_hub(changed("text_config.layer_types", kinds, HUB_2_224))
    assert config.text.layer_types == tuple(kinds)


PARAMETERS = {
    "paligemma2-3b-224": 3_032_094_960,
    "paligemma2-10b-224": 9_662_409_456,
    "paligemma2-28b-224": 27_650_192_112,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_of_paligemma_2(name):
    """Those of big_vision's variants, plus the 64 rows by which the hub pads the embedding table."""
    config = PUBLISHED[name]
    count = sum(math.prod(leaf.shape) for leaf in declared(config))
    assert count == PARAMETERS[name] + 64 * config.text.width


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_size_is_written_and_read_back(name):
    assert from_hub(to_hub(PUBLISHED[name])) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("own", "decoders", "expected"),
    [
        (1, [1, 107], (1, 107)),
        ([1, 107], None, (1, 107)),
        (9, 1, (9,)),  # a default that Hugging Face wrote out beside the file's own
        (None, 5, (5,)),
        (None, None, (1,)),
        ([5, 7], [7, 8], (5, 7, 8)),
    ],
)
def test_the_ids_that_end_an_answer(own, decoders, expected):
    document = changed("eos_token_id", own)
    document["text_config"]["eos_token_id"] = decoders
    assert from_hub(document).eos_tokens == expected


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("text_config.layer_types", ["full_attention"], "layer_types names 1 layers"),
        ("text_config.layer_types", ["chunked_attention"] * 26, "chunked_attention"),
        ("text_config.layer_types", "full_attention", "should be a list"),
        ("text_config.sliding_window", 0, "sliding_window"),
        ("text_config.sliding_window", "null", "sliding_window should be a number"),
        ("text_config.attn_logit_softcapping", "null", "attn_logit_softcapping should be a number"),
        ("text_config.final_logit_softcapping", -30.0, "final_logit_softcapping"),
        ("text_config.query_pre_attn_scalar", 0, "query_pre_attn_scalar"),
        ("text_config.query_pre_attn_scalar", [], "query_pre_attn_scalar should be a finite number, found a list of 0"),
        ("text_config.layer_types", [["full_attention"]], r"layer_types\[0\] should be a text"),
        ("text_config.eos_token_id", [1, 10**6], "special token"),
        ("projection_dim", 2048, "projection_dim"),
    ],
)
def test_a_paligemma_2_that_cannot_be_is_refused(path, value, says):
    document = changed(path, value, HUB_2_224)
    if value == "null":
        document["text_config"][path.partition(".")[2]] = None
    with pytest.raises(InputError, match=says):
        from_hub(document)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model_type", "llava", "'llava'"),
        ("model_type", None, "paligemma"),
        ("model_type", ["paligemma"], "model_type should be a text, found a list of 1"),
        ("model_type", {}, "model_type should be a text, found an object of 0"),
        ("text_config.model_type", [], "text_config.model_type should be a text"),
        ("vision_config", "x", "vision_config should be an object, found 'x'"),
        ("vision_config.model_type", "clip_vision_model", "'clip_vision_model'"),
        ("text_config.use_bidirectional_attention", False, "should be True, found False"),
        ("text_config", None, "text_config"),
        ("text_config", [], "text_config"),
        ("text_config.model_type", "llama", "llama"),
        ("text_config.hidden_activation", "silu", "silu"),
        ("text_config.rope_scaling", {"type": "linear"}, "rope_scaling"),
        ("text_config.rope_parameters", 7, "rope_parameters"),
        ("text_config.rope_parameters", {"rope_type": "yarn"}, "yarn"),
        ("text_config.rope_parameters", {"full_attention": {"rope_theta": 5.0}}, "one for full_attention"),
        ("text_config.rope_parameters", {"rope_theta": "1"}, "rope_theta should be a finite number"),
        ("text_config.attention_bias", True, "attention_bias"),
        ("text_config.num_hidden_layers", 0, "num_hidden_layers"),
        ("text_config.num_hidden_layers", -1, "num_hidden_layers"),
        ("text_config.num_hidden_layers", 18.0, "num_hidden_layers"),
        ("text_config.num_hidden_layers", True, "num_hidden_layers"),
        ("text_config.num_hidden_layers", "18", "num_hidden_layers"),
        ("text_config.num_hidden_layers", 10**7, "num_hidden_layers"),
        ("text_config.hidden_size", 10**12, "hidden_size"),
        ("text_config.hidden_size", [1] * 300_000, "found a list of 300000"),
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
        ("eos_token_id", [1, "107"], "eos_token_id"),
        ("quantization_config", {"quant_method": []}, "quant_method should be a text"),
        ("image_token_index", "no", "image_token_index"),
    ],
)
def test_a_config_that_cannot_be_is_refused(path, value, says):
    with pytest.raises(InputError, match=says) as caught:
        from_hub(changed(path, value), "'a/config.json'")
    assert str(caught.value).startswith("'a/config.json'")
