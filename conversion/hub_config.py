"""The hub's ``config.json``: read to our sizes, and written from them.

A hub file leaves out every value that equals the default of Hugging Face's configuration class, so the defaults below
are those of ``SiglipVisionConfig``, ``GemmaConfig`` and ``Gemma2Config``, not PaliGemma's sizes. The decoder's sizes
are read from ``text_config`` alone: at the top level PaliGemma 2's files repeat some of PaliGemma 1's.
"""

import dataclasses
from typing import Any

from conversion.refusals import family_of
from npgemma.config import FULL, IMAGE_TOKEN, SLIDING, Config, Gemma2Config, TextConfig, VisionConfig, alternating
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.shapes import check

# No published model comes near; a larger figure is a damaged file, and believing it would cost all memory.
LARGEST_SIZE = 2**24
MOST_LAYERS = 1024
LARGEST_NUMBER = 1e12

# Our name of each value: the hub's name, and what it is where the file does not say.
VISION = {
    "width": ("hidden_size", 768),
    "mlp_width": ("intermediate_size", 3072),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "image_size": ("image_size", 224),
    "patch_size": ("patch_size", 16),
    "epsilon": ("layer_norm_eps", 1e-6),
}
TEXT = {
    "width": ("hidden_size", 3072),
    "mlp_width": ("intermediate_size", 24576),
    "layers": ("num_hidden_layers", 28),
    "query_heads": ("num_attention_heads", 16),
    "key_value_heads": ("num_key_value_heads", 16),
    "head_width": ("head_dim", 256),
    "vocabulary": ("vocab_size", 256000),
    "context_length": ("max_position_embeddings", 8192),
    "epsilon": ("rms_norm_eps", 1e-6),
    "rope_theta": ("rope_theta", 10000.0),
}
TEXT_2 = TEXT | {
    "width": ("hidden_size", 2304),
    "mlp_width": ("intermediate_size", 9216),
    "layers": ("num_hidden_layers", 26),
    "query_heads": ("num_attention_heads", 8),
    "key_value_heads": ("num_key_value_heads", 4),
    "query_pre_attn_scalar": ("query_pre_attn_scalar", 256.0),
    "attention_softcap": ("attn_logit_softcapping", 50.0),
    "final_softcap": ("final_logit_softcapping", 30.0),
    "sliding_window": ("sliding_window", 4096),
    "layer_types": ("layer_types", None),  # `alternating`
}
# The decoder's ``model_type``: its sizes, and where they are read from.
FAMILIES = {"gemma": (TextConfig, TEXT), "gemma2": (Gemma2Config, TEXT_2)}


# The shape of the file. Of another family only the first part is looked at.
FAMILY: dict[str, Any] = {"model_type": (str, None), "text_config": ({"model_type": (str, None)}, None)}
_IDS = (int, [int], None)
_ROTARY = {"rope_type": (str, None), "type": (str, None), "rope_theta": (float, None)}


def _shapes(kind, names, **others):
    """Return the shapes of one tower's part, in which null stands for the default."""
    types = {entry.name: entry.type if entry.type in (int, float) else [str] for entry in dataclasses.fields(kind)}
    return {hub: (shape, None) for hub, shape in ({names[name][0]: types[name] for name in names} | others).items()}


SHAPE: dict[str, Any] = {
    "vision_config": _shapes(VisionConfig, VISION, model_type=str, hidden_act=str, num_channels=int),
    "text_config": _shapes(
        Gemma2Config, TEXT_2, hidden_act=str, hidden_activation=str, attention_bias=bool, rope_scaling=_ROTARY,
        rope_parameters=_ROTARY, use_bidirectional_attention=bool,
    ) | {"eos_token_id": _IDS},
    **dict.fromkeys(("image_token_index", "image_token_id", "projection_dim"), (int, None)),
    **dict.fromkeys(("pad_token_id", "bos_token_id"), (int, None)),
    "eos_token_id": _IDS,
    "quantization_config": ({"quant_method": (str, None)}, None),
}  # fmt: skip


def from_hub(document: Any, name: str = "config.json") -> Config:
    """Read a parsed ``config.json``, called ``name`` in errors; InputError for another model or an impossible one."""
    check(document, FAMILY, name)
    _check_family(document, name)
    check(document, SHAPE, name)
    try:
        return _read_parts(document, document["vision_config"], document["text_config"])
    except InputError as problem:
        raise InputError(f"{name}: {problem}") from None


def _read_parts(document, vision_part, text_part):
    _check_variants(vision_part, text_part)
    image_token = _special(document, "image_token_index", _special(document, "image_token_id", IMAGE_TOKEN))
    kind, names = FAMILIES[text_part.get("model_type") or "gemma"]
    # Newer files have this base in a part of its own.
    base = (text_part.get("rope_parameters") or {}).get("rope_theta")
    text = _read(kind, names, text_part if base is None else text_part | {"rope_theta": base}, "text_config")
    if kind is Gemma2Config and text["layer_types"] is None:
        text["layer_types"] = alternating(text["layers"])
    config = Config(
        VisionConfig(**_read(VisionConfig, VISION, vision_part, "vision_config")),
        kind(**text),
        image_token=image_token,
        pad_token=_special(document, "pad_token_id", 0),
        eos_tokens=_end_tokens(document, text_part),
        bos_token=_special(document, "bos_token_id", 2),
    )
    _check_sizes(config, document)
    return config


def to_hub(config, dtype="float32"):
    """Return the hub's ``config.json`` for a configuration, with every value written out."""
    vision = {hub: getattr(config.vision, name) for name, (hub, _) in VISION.items()}
    family, names = next((family, names) for family, (kind, names) in FAMILIES.items() if kind is type(config.text))
    text = {hub: getattr(config.text, name) for name, (hub, _) in names.items()}
    if "layer_types" in text:
        text["layer_types"] = list(text["layer_types"])
        # A whole number to Hugging Face, which every published one is.
        scalar = config.text.query_pre_attn_scalar
        text["query_pre_attn_scalar"] = int(scalar) if scalar == int(scalar) else scalar
    if len(config.eos_tokens) > 1:
        text["eos_token_id"] = list(config.eos_tokens)
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "bos_token_id": config.bos_token,
        "eos_token_id": config.eos_tokens[0],
        "pad_token_id": config.pad_token,
        "image_token_index": config.image_token,
        "hidden_size": config.text.width,
        "projection_dim": config.text.width,
        "vocab_size": config.text.vocabulary,
        "torch_dtype": dtype,
        "text_config": {
            "model_type": family,
            "hidden_activation": "gelu_pytorch_tanh",
            "num_image_tokens": config.image_tokens,
            **text,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_act": "gelu_pytorch_tanh",
            "num_image_tokens": config.image_tokens,
            "projection_dim": config.text.width,
            "vision_use_head": False,
            **vision,
        },
    }


def _check_family(document, name):
    """Accept PaliGemma 1 and 2; refuse any other model by name."""
    family, decoder = document.get("model_type"), (document.get("text_config") or {}).get("model_type") or "gemma"
    if family != "paligemma" or decoder not in FAMILIES:
        found = family_of(document) if family != "paligemma" else f"paligemma with a {decoder!r} decoder"
        raise InputError(f"{name} should describe a 'paligemma' model, found {found}: pass PaliGemma's folder")


def _check_variants(vision_part, text_part):
    """Refuse settings that change the arithmetic from PaliGemma's."""
    # Gemma's "gelu" has always meant the tanh form (transformers PR 29402), so that name is accepted for the decoder.
    allowed = {
        "vision_config.model_type": (vision_part.get("model_type"), ("siglip_vision_model",)),
        "vision_config.hidden_act": (vision_part.get("hidden_act"), ("gelu_pytorch_tanh",)),
        "vision_config.num_channels": (vision_part.get("num_channels"), (3,)),
        "text_config.hidden_act": (text_part.get("hidden_act"), ("gelu_pytorch_tanh", "gelu")),
        "text_config.hidden_activation": (text_part.get("hidden_activation"), ("gelu_pytorch_tanh", "gelu")),
        "text_config.attention_bias": (text_part.get("attention_bias"), (False,)),
        # PaliGemma's prefix is bidirectional, whether a file says so or, as most, nothing.
        "text_config.use_bidirectional_attention": (text_part.get("use_bidirectional_attention"), (True,)),
        "text_config.rope_scaling": (_rope_type(text_part.get("rope_scaling")), ("default",)),
        "text_config.rope_parameters": (_rope_type(text_part.get("rope_parameters")), ("default",)),
    }
    # Here null is no default: to Hugging Face it means no cap or no window, and no such Gemma 2 was published.
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window", "query_pre_attn_scalar"):
        if text_part.get("model_type") == "gemma2" and name in text_part and text_part[name] is None:
            raise InputError(f"text_config.{name} should be a number, found null: this is not PaliGemma")
    for name, (found, known) in allowed.items():
        if found is not None and found not in known:
            expected = " or ".join(map(repr, known))
            raise InputError(f"{name} should be {expected}, found {shown(repr(found), 80)}: this is not PaliGemma")


def _rope_type(parameters):
    """Return the kind of rotary positions, of which PaliGemma has one for all layers."""
    parts = [key for key, value in (parameters or {}).items() if isinstance(value, dict)]
    named = parameters and (parameters.get("rope_type") or parameters.get("type") or "default")
    return f"one for {parts[0]}" if parts else named


def _read(kind, names, part, where):
    """Read one tower's values, each checked for its type and range."""
    types, values = {entry.name: entry.type for entry in dataclasses.fields(kind)}, {}
    for name, (hub, default) in names.items():
        value = part.get(hub)
        read = {int: _integer, float: _positive}.get(types[name], _layer_types)
        values[name] = default if value is None else read(value, f"{where}.{hub}")
    return values


def _integer(value, name, least=1):
    most = MOST_LAYERS if name.endswith("num_hidden_layers") else LARGEST_SIZE
    if not least <= value <= most:
        raise InputError(f"{name} should be a whole number from {least} to {most}, found {value}")
    return value


def _layer_types(value, name):
    other = next((word for word in value if word not in (SLIDING, FULL)), None)
    if other is not None:
        raise InputError(f"{name} should be a list of {SLIDING} and {FULL}, found {shown(repr(other), 80)} in it")
    return tuple(value)


def _end_tokens(document, text_part):
    """Return the ids that end an answer: the file's own first, then those of its decoder's part if that lists several.

    PaliGemma 2's files say 1, and [1, 107] for the decoder. A single id of the decoder is mostly a default that
    Hugging Face wrote out, and counts only where the file has none of its own.
    """
    own, decoders = document.get("eos_token_id"), text_part.get("eos_token_id")
    found = _listed(own)
    if isinstance(decoders, list) or not found:
        found = found + _listed(decoders)
    return tuple(dict.fromkeys(_integer(token, "eos_token_id", least=0) for token in found)) or (1,)


GENERATION_SHAPE: dict[str, Any] = {"eos_token_id": _IDS}


def with_end_tokens(config: Config, document: Any, name: str = "generation_config.json") -> Config:
    """Return the configuration with the end tokens of a parsed ``generation_config.json`` beside its own.

    Hugging Face takes those of this file alone. An answer that goes on past ``<eos>`` is never wanted, so those of
    ``config.json`` stay. InputError if an end token is no id of this vocabulary.
    """
    found, most = _listed(document.get("eos_token_id")), config.text.vocabulary - 1
    for token in found:
        if not 0 <= token <= most:
            raise InputError(
                f"{name}: eos_token_id should be ids from 0 to {most}, found {token}: is this the checkpoint's own "
                "file?"
            )
    return dataclasses.replace(config, eos_tokens=tuple(dict.fromkeys([*found, *config.eos_tokens])))


def _listed(ids):
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def _special(document, name, default):
    value = document.get(name, default)
    return _integer(default if value is None else value, name, least=0)


def _positive(value, name):
    if not 0 < value < LARGEST_NUMBER:
        raise InputError(f"{name} should be a number above 0 and below {LARGEST_NUMBER}, found {value}")
    return float(value)


def _check_sizes(config, document):
    """Refuse sizes that contradict each other."""
    vision, text = config.vision, config.text
    projected = text.width if document.get("projection_dim") is None else document["projection_dim"]
    checks = [
        (
            vision.width % vision.heads == 0,
            f"vision_config has {vision.width} channels, which {vision.heads} heads cannot share evenly",
        ),
        (
            vision.image_size >= vision.patch_size,
            f"an image of {vision.image_size} pixels is smaller than one patch of {vision.patch_size}",
        ),
        (
            text.query_heads % text.key_value_heads == 0,
            f"{text.query_heads} query heads cannot share {text.key_value_heads} key/value heads evenly",
        ),
        (text.head_width % 2 == 0, f"head_dim is {text.head_width}, but rotary positions need an even number"),
        (projected == text.width, f"projection_dim is {projected}, but the decoder's hidden_size is {text.width}"),
        (
            config.image_tokens < text.context_length,
            f"{config.image_tokens} image tokens do not fit the context of {text.context_length}",
        ),
        (
            max(config.pad_token, *config.eos_tokens, config.bos_token) < text.vocabulary,
            f"a special token's id lies outside the vocabulary of {text.vocabulary}",
        ),
    ]
    if isinstance(text, Gemma2Config):
        count = len(text.layer_types)
        checks.append((count == text.layers, f"layer_types names {count} layers, num_hidden_layers {text.layers}"))
    for good, problem in checks:
        if not good:
            raise InputError(f"this model is impossible: {problem}")
