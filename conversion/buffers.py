"""Tensors that are no weights: constants that older versions of transformers saved, and a part that no answer uses."""

import re

import numpy as np

from conversion.layout import canonical
from npgemma import rope
from npgemma.errors import InputError
from npgemma.fast.bfloat16 import narrow, widen

# SigLIP pools its image tokens in it; PaliGemma takes them as they are.
UNUSED = "vision_tower.vision_model.head."
POSITIONS = "vision_tower.vision_model.embeddings.position_ids"
FREQUENCIES = re.compile(r"language_model\.model\.(?:layers\.\d+\.self_attn\.)?rotary_emb\.(?:original_)?inv_freq")


def without_buffers(tensors, config, folder):
    """Return tensors by name without these; InputError if a constant is not what this package calculates itself."""
    kept = {}
    for stored_name, tensor in tensors.items():
        name = canonical(stored_name)
        if name == POSITIONS:
            expected = np.arange(config.image_tokens)
        elif FREQUENCIES.fullmatch(name):
            expected = rope.angles(np.array([[1]]), config.text.head_width, config.text.rope_theta)[0, 0]
        else:
            kept |= {} if name.startswith(UNUSED) else {stored_name: tensor}
            continue
        if not _is(tensor, expected):
            raise InputError(
                f"tensor {stored_name} in '{folder}' is a constant, but its values are not those that follow from "
                "config.json: is this the checkpoint's own file?"
            )
    return kept


def _is(tensor, expected):
    """Return whether a tensor has these values, perhaps rounded to one of the dtypes that weights come in."""
    if tensor.size != expected.size:
        return False
    with np.errstate(over="ignore"):
        rounded = expected, widen(narrow(expected)), expected.astype(np.float16)
    found = tensor.wide(tensor.array).reshape(-1)
    return any(np.allclose(found, values, rtol=1e-5, atol=1e-12) for values in rounded)
