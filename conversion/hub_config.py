"""The hub's ``config.json``: read to our sizes, and written from them.

A hub file leaves out every value that equals the default of Hugging Face's configuration class, so the defaults below
are those of ``SiglipVisionConfig``, ``GemmaConfig`` and ``Gemma2Config``, not PaliGemma's sizes. The decoder's sizes
are read from ``text_config`` alone: at the top level PaliGemma 2's files repeat some of PaliGemma 1's.
"""

import dataclasses

from conversion.refusals import family_of
from npgemma.config import FULL, IMAGE_TOKEN, SLIDING, Config, Gemma2Config, TextConfig, VisionConfig, alternating
from npgemma.errors import InputError

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
    "query_pre_attn_scalar": ("query_pre_attn_scalar", 256),
    "attention_softcap": ("attn_logit_softcapping", 50.0),
    "final_softcap": ("final_logit_softcapping", 30.0),
    "sliding_window": ("sliding_window", 4096),
    "layer_types": ("layer_types", None),  # `alternating`
}
# The decoder's ``model_type``: its sizes, and where they are read from.
FAMILIES = {"gemma": (TextConfig, TEXT), "gemma2": (Gemma2Config, TEXT_2)}


def from_hub(document):
    """Read the contents of a hub ``config.json``; InputError for another model, or sizes that no model has."""
    if not isinstance(document, dict):
        raise InputError(f"config.json should hold an object, found {type(document).__name__}")
    _check_family(document)
    vision_part, text_part = document.get("vision_config"), document.get("text_config")
    for name, part in (("vision_config", vision_part), ("text_config", text_part)):
        if not isinstance(part, dict):
            raise InputError(f"config.json should hold an object '{name}', found {part!r}: is this PaliGemma's file?")
    _check_variants(vision_part, text_part)
    rotary = text_part.get("rope_parameters") or {}
    text_part = {**text_part, **({"rope_theta": rotary["rope_theta"]} if "rope_theta" in rotary else {})}
    image_token = document.get("image_token_index", document.get("image_token_id", IMAGE_TOKEN))
    kind, names = FAMILIES[text_part.get("model_type") or "gemma"]
    text = _read(kind, names, text_part, "text_config")
    if kind is Gemma2Config and text["layer_types"] is None:
        text["layer_types"] = alternating(text["layers"])
    config = Config(
        VisionConfig(**_read(VisionConfig, VISION, vision_part, "vision_config")),
        kind(**text),
        image_token=_integer(image_token, "image_token_index"),
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


def _check_family(document):
    """Accept PaliGemma 1 and 2; refuse any other model by name."""
    family = document.get("model_type")
    text_part = document.get("text_config")
    text_family = text_part.get("model_type") if isinstance(text_part, dict) else None
    if family != "paligemma" or (text_family or "gemma") not in FAMILIES:
        found = family_of(document) if family != "paligemma" else f"paligemma with a {text_family!r} decoder"
        raise InputError(f"config.json should describe a 'paligemma' model, found {found}: pass PaliGemma's folder")


def _check_variants(vision_part, text_part):
    """Refuse settings that change the arithmetic from PaliGemma's."""
    # Gemma's "gelu" has always meant the tanh form (transformers PR 29402), so that name is accepted for the decoder.
    allowed = {
        "vision_config.hidden_act": (vision_part.get("hidden_act"), ("gelu_pytorch_tanh",)),
        "vision_config.num_channels": (vision_part.get("num_channels"), (3,)),
        "text_config.hidden_act": (text_part.get("hidden_act"), ("gelu_pytorch_tanh", "gelu")),
        "text_config.hidden_activation": (text_part.get("hidden_activation"), ("gelu_pytorch_tanh", "gelu")),
        "text_config.attention_bias": (text_part.get("attention_bias"), (False,)),
        "text_config.rope_scaling": (text_part.get("rope_scaling"), ()),
        "text_config.rope_parameters": (_rope_type(text_part.get("rope_parameters")), ("default",)),
    }
    # Here null is no default: to Hugging Face it means no cap or no window, and no such Gemma 2 was published.
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window", "query_pre_attn_scalar"):
        if text_part.get("model_type") == "gemma2" and name in text_part and text_part[name] is None:
            raise InputError(f"config.json's text_config.{name} should be a number, found null: this is not PaliGemma")
    for name, (found, known) in allowed.items():
        if found is not None and found not in known:
            expected = " or ".join(map(repr, known)) or "nothing"
            raise InputError(f"config.json's {name} should be {expected}, found {found!r}: this is not PaliGemma")


def _rope_type(parameters):
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise InputError(f"config.json's text_config.rope_parameters should be an object, found {parameters!r}")
    return parameters.get("rope_type", "default")


def _read(kind, names, part, where):
    """Read one tower's values, each checked for its type and range."""
    types, values = {entry.name: entry.type for entry in dataclasses.fields(kind)}, {}
    for name, (hub, default) in names.items():
        value = part.get(hub)
        read = {int: _integer, float: _positive}.get(types[name], _layer_types)
        values[name] = default if value is None else read(value, f"{where}.{hub}")
    return values


def _integer(value, name, least=1):
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST_SIZE:
        raise InputError(
            f"config.json's {name} should be a whole number from {least} to {LARGEST_SIZE}, found {value!r}"
        )
    return value


def _layer_types(value, name):
    known = SLIDING, FULL
    if not isinstance(value, list) or any(word not in known for word in value):
        raise InputError(f"config.json's {name} should be a list of {' and '.join(known)}, found {value!r}")
    return tuple(value)


def _end_tokens(document, text_part):
    """Return the ids that end an answer: the file's own first, then those of its decoder's part if that lists several.

    PaliGemma 2's files say 1, and [1, 107] for the decoder. A single id of the decoder is mostly a default that
    Hugging Face wrote out, and counts only where the file has none of its own.
    """
    own, decoders = document.get("eos_token_id"), text_part.get("eos_token_id")
    found = own if isinstance(own, list) else [] if own is None else [own]
    if isinstance(decoders, list) or (decoders is not None and not found):
        found = found + (decoders if isinstance(decoders, list) else [decoders])
    return tuple(dict.fromkeys(_integer(token, "eos_token_id", least=0) for token in found)) or (1,)


def with_end_tokens(config: Config, document) -> Config:
    """Return the configuration with the end tokens of a parsed ``generation_config.json`` beside its own.

    Hugging Face takes those of this file alone. An answer that goes on past ``<eos>`` is never wanted, so those of
    ``config.json`` stay. InputError if an end token is no id of this vocabulary.
    """
    if not isinstance(document, dict):
        raise InputError(f"generation_config.json should hold an object, found {type(document).__name__}")
    found = document.get("eos_token_id")
    found, most = found if isinstance(found, list) else [found], config.text.vocabulary - 1
    for token in found if found != [None] else []:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= most:
            raise InputError(
                f"generation_config.json's eos_token_id should be ids from 0 to {most}, found {token!r}: is this the "
                "checkpoint's own file?"
            )
    found = [] if found == [None] else found
    return dataclasses.replace(config, eos_tokens=tuple(dict.fromkeys([*found, *config.eos_tokens])))


def _special(document, name, default):
    value = document.get(name, default)
    return _integer(default if value is None else value, name, least=0)


def _positive(value, name):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < LARGEST_NUMBER:
        raise InputError(f"config.json's {name} should be a number above 0 and below {LARGEST_NUMBER}, found {value!r}")
    return float(value)


def _check_sizes(config, document):
    """Refuse sizes that contradict each other."""
    vision, text = config.vision, config.text
    projected = document.get("projection_dim", text.width)
    checks = [
        (vision.layers <= MOST_LAYERS, f"num_hidden_layers of vision_config is {vision.layers}, over {MOST_LAYERS}"),
        (text.layers <= MOST_LAYERS, f"num_hidden_layers of text_config is {text.layers}, over {MOST_LAYERS}"),
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
            raise InputError(f"config.json describes an impossible model: {problem}")
