"""Folders that are not a checkpoint of PaliGemma as the hub has it, told apart by what they hold."""

import re

from npgemma.errors import InputError

# Families by the ``model_type`` of their config.json, as people call them.
FAMILIES = {
    "gemma": "Gemma", "gemma2": "Gemma 2", "gemma3": "Gemma 3", "gemma3_text": "Gemma 3", "gemma3n": "Gemma 3n",
    "gemma4": "Gemma 4", "siglip": "SigLIP", "siglip2": "SigLIP 2", "siglip_vision_model": "SigLIP",
    "siglip_text_model": "SigLIP", "clip": "CLIP", "llava": "LLaVA", "llava_next": "LLaVA-NeXT", "colpali": "ColPali",
    "qwen2_vl": "Qwen2-VL", "qwen2_5_vl": "Qwen2.5-VL", "idefics3": "Idefics 3", "mllama": "Llama 3.2 Vision",
    "llama": "Llama", "t5gemma": "T5Gemma", "recurrent_gemma": "RecurrentGemma",
}  # fmt: skip
QUANTISED = re.compile(
    r"\.(?:(?:qweight|qzeros|scales|g_idx|SCB|weight_format|weight_scale|(?:weight\.)?(?:nested_)?(?:absmax|quant_map))"
    r"\Z|(?:weight\.)?quant_state\.)"
)
# What other programs store instead of safetensors, by the end of the file's name.
PICKLE = "a PyTorch pickle: load it with transformers and save it with save_pretrained"
ORIGINAL = "format: download the original checkpoint in safetensors"
OTHER_FILES = dict.fromkeys((".bin", ".pt", ".pth", ".ckpt"), PICKLE) | {
    ".gguf": f"llama.cpp's {ORIGINAL}",
    ".sbs": f"gemma.cpp's {ORIGINAL}",
    ".msgpack": f"Flax's {ORIGINAL}",
    ".h5": f"Keras's {ORIGINAL}",
}


def check_config(document, folder):
    """Refuse a ``config.json`` whose weights are stored in a way that npgemma does not read, by name (InputError)."""
    quantised = document.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method")
        _refuse_quantised(folder, f"quantised by {method}" if method else "quantised")
    # MLX writes this beside its own key, and alone in older versions.
    if document.get("quantization") is not None:
        _refuse_quantised(folder, "quantised by MLX")


def check_names(names, folder):
    """Refuse tensors that are quantised, of unmerged adapters, or all under a prefix, by what they are (InputError)."""
    names = sorted(names)
    for name in names:
        if re.search(r"\.lora_|\.base_layer\.|\.modules_to_save\.", name):
            raise InputError(
                f"'{folder}' holds an unmerged LoRA model (tensor {name}): merge it with peft's merge_and_unload and "
                "save it again, or pass the adapter folder with --base"
            )
        if QUANTISED.search(name):
            _refuse_quantised(folder, f"quantised (tensor {name})")
    roots = r"(.*?)(?:model\.)?(?:language_model|vision_tower|multi_modal_projector)\."
    prefix = next((found for name in names if (found := re.match(roots, name))), None)
    if prefix and prefix[1] and all(name.startswith(prefix[1]) for name in names):
        what = "as peft's wrapper names them" if prefix[1].startswith("base_model.") else "as a wrapper names them"
        raise InputError(
            f"all tensors in '{folder}' begin with '{prefix[1]}', {what}: save the model inside the wrapper (with "
            "peft, merge_and_unload first)"
        )


def check_metadata(metadata, path):
    """Refuse a safetensors file that says it was written for MLX, whose layouts differ under the same names."""
    if metadata.get("format") == "mlx":
        raise InputError(f"'{path}' was written for MLX, which stores weights otherwise: pass the original checkpoint")


def refuse_without_weights(folder, expected):
    """Refuse a folder without the safetensors that were expected in it; say what it holds instead (InputError)."""
    for path in sorted(folder.iterdir()):
        if path.suffix in OTHER_FILES:
            raise InputError(f"the weights in '{folder}' are in '{path.name}', {OTHER_FILES[path.suffix]}")
    raise InputError(f"'{folder}' should hold {expected}; it holds neither")


def check_shards(index, tensors, folder):
    """Refuse shards of two checkpoints: their dtypes differ from file to file, and their size is not the index's."""
    expected = (index.get("metadata") or {}).get("total_size")
    found = sum(tensor.bytes for shard in tensors.values() for tensor in shard)
    dtypes = {name: {tensor.dtype for tensor in shard} for name, shard in tensors.items() if shard}
    if isinstance(expected, int) and expected != found and len(set(map(frozenset, dtypes.values()))) > 1:
        said = ", ".join(f"{name}: {'/'.join(sorted(words))}" for name, words in dtypes.items())
        raise InputError(
            f"the shards in '{folder}' are of two checkpoints ({said}; {found} bytes, by the index {expected}): "
            "download them again"
        )


def family_of(document: dict) -> str:
    """Return the name that people call a model by, for a ``config.json`` of another family."""
    kind = document.get("model_type")
    name = FAMILIES.get(kind or "")
    return f"{name} ({kind!r})" if name else repr(kind)


def _refuse_quantised(folder, what):
    raise InputError(
        f"the weights in '{folder}' are {what}, which npgemma does not read: pass the checkpoint that they were made "
        "from; --dtype int8 makes it as small"
    )
