"""Names and layouts: one table from our tree to the hub's files.

A layout is written in axis letters. ``(NH)D`` is a matrix whose rows are heads times channels and whose columns are
the model width; ``DNH``, declared in ``npgemma/params.py``, is how the mathematics wants it. From the two strings the
view is made, in either direction, without copying.
"""

import dataclasses
import math
import re
from dataclasses import dataclass

import numpy as np

from npgemma import axes as alphabet
from npgemma.config import Gemma2Config
from npgemma.params import declared

_VISION = "vision_tower.vision_model."
_VISION_LAYER = _VISION + "encoder.layers.*."
_TEXT = "language_model.model."
_TEXT_LAYER = _TEXT + "layers.*."

# Our name: the hub's name and layout. A star stands for the layer's number.
STORED = {
    "vision.patch_embedding": (_VISION + "embeddings.patch_embedding.weight", "DCyx"),
    "vision.patch_embedding_bias": (_VISION + "embeddings.patch_embedding.bias", "D"),
    "vision.position_embedding": (_VISION + "embeddings.position_embedding.weight", "TD"),
    "vision.blocks.*.attn_norm.scale": (_VISION_LAYER + "layer_norm1.weight", "D"),
    "vision.blocks.*.attn_norm.bias": (_VISION_LAYER + "layer_norm1.bias", "D"),
    "vision.blocks.*.attn.q": (_VISION_LAYER + "self_attn.q_proj.weight", "(NH)D"),
    "vision.blocks.*.attn.q_bias": (_VISION_LAYER + "self_attn.q_proj.bias", "(NH)"),
    "vision.blocks.*.attn.k": (_VISION_LAYER + "self_attn.k_proj.weight", "(KH)D"),
    "vision.blocks.*.attn.k_bias": (_VISION_LAYER + "self_attn.k_proj.bias", "(KH)"),
    "vision.blocks.*.attn.v": (_VISION_LAYER + "self_attn.v_proj.weight", "(KH)D"),
    "vision.blocks.*.attn.v_bias": (_VISION_LAYER + "self_attn.v_proj.bias", "(KH)"),
    "vision.blocks.*.attn.o": (_VISION_LAYER + "self_attn.out_proj.weight", "D(NH)"),
    "vision.blocks.*.attn.o_bias": (_VISION_LAYER + "self_attn.out_proj.bias", "D"),
    "vision.blocks.*.mlp_norm.scale": (_VISION_LAYER + "layer_norm2.weight", "D"),
    "vision.blocks.*.mlp_norm.bias": (_VISION_LAYER + "layer_norm2.bias", "D"),
    "vision.blocks.*.mlp.up": (_VISION_LAYER + "mlp.fc1.weight", "FD"),
    "vision.blocks.*.mlp.up_bias": (_VISION_LAYER + "mlp.fc1.bias", "F"),
    "vision.blocks.*.mlp.down": (_VISION_LAYER + "mlp.fc2.weight", "DF"),
    "vision.blocks.*.mlp.down_bias": (_VISION_LAYER + "mlp.fc2.bias", "D"),
    "vision.norm.scale": (_VISION + "post_layernorm.weight", "D"),
    "vision.norm.bias": (_VISION + "post_layernorm.bias", "D"),
    "projector.linear": ("multi_modal_projector.linear.weight", "DE"),
    "projector.bias": ("multi_modal_projector.linear.bias", "D"),
    "text.embedding": (_TEXT + "embed_tokens.weight", "VD"),
    "text.blocks.*.attn_norm": (_TEXT_LAYER + "input_layernorm.weight", "D"),
    "text.blocks.*.attn.q": (_TEXT_LAYER + "self_attn.q_proj.weight", "(NH)D"),
    "text.blocks.*.attn.k": (_TEXT_LAYER + "self_attn.k_proj.weight", "(KH)D"),
    "text.blocks.*.attn.v": (_TEXT_LAYER + "self_attn.v_proj.weight", "(KH)D"),
    "text.blocks.*.attn.o": (_TEXT_LAYER + "self_attn.o_proj.weight", "D(NH)"),
    # In Gemma 1 this is the norm before the MLP, whatever its name says.
    "text.blocks.*.mlp_norm": (_TEXT_LAYER + "post_attention_layernorm.weight", "D"),
    "text.blocks.*.mlp.gate": (_TEXT_LAYER + "mlp.gate_proj.weight", "FD"),
    "text.blocks.*.mlp.up": (_TEXT_LAYER + "mlp.up_proj.weight", "FD"),
    "text.blocks.*.mlp.down": (_TEXT_LAYER + "mlp.down_proj.weight", "DF"),
    "text.norm": (_TEXT + "norm.weight", "D"),
}

# What Gemma 2 stores otherwise: the norm that follows attention has the name which Gemma 1 gives to the MLP's norm.
STORED_GEMMA_2 = STORED | {
    "text.blocks.*.attn_out_norm": (_TEXT_LAYER + "post_attention_layernorm.weight", "D"),
    "text.blocks.*.mlp_norm": (_TEXT_LAYER + "pre_feedforward_layernorm.weight", "D"),
    "text.blocks.*.mlp_out_norm": (_TEXT_LAYER + "post_feedforward_layernorm.weight", "D"),
}


@dataclass(frozen=True)
class StoredLeaf:
    """One array of the tree as the hub stores it."""

    name: str  # ours
    stored_name: str  # the hub's
    stored_axes: str  # "(NH)D"
    stored_shape: tuple[int, ...]
    axes: str  # "DNH"
    sizes: dict  # of every letter
    kind: str

    def view(self, stored):
        """Turn the stored array into ours; a view, no copy."""
        split = stored.reshape([self.sizes[letter] for letter in _letters(self.stored_axes)])
        order = [_letters(self.stored_axes).index(letter) for letter in self.axes]
        return split.transpose(order)

    def store(self, array):
        """Turn our array into the stored one."""
        order = [self.axes.index(letter) for letter in _letters(self.stored_axes)]
        return np.ascontiguousarray(array.transpose(order)).reshape(self.stored_shape)


def stored_leaves(config):
    """Return a `StoredLeaf` for every array of a model of this configuration, by our name."""
    sizes = alphabet.sizes(config)
    table = STORED_GEMMA_2 if isinstance(config.text, Gemma2Config) else STORED
    found = {}
    for leaf in declared(config):
        numbers = re.findall(r"\.(\d+)\.", leaf.name)
        stored_name, stored_axes = table[re.sub(r"\.\d+\.", ".*.", leaf.name)]
        tower = sizes[leaf.name.partition(".")[0]]
        shape = tuple(
            math.prod(tower[letter] for letter in group.strip("()")) for group in re.findall(r"\(\w+\)|\w", stored_axes)
        )
        for number in numbers:
            stored_name = stored_name.replace("*", number)
        found[leaf.name] = StoredLeaf(leaf.name, stored_name, stored_axes, shape, leaf.axes, tower, leaf.kind)
    return found


def with_rows(config, rows):
    """Return a configuration with so many rows in the embedding table."""
    return dataclasses.replace(config, text=dataclasses.replace(config.text, vocabulary=rows))


def canonical(stored_name):
    """Bring a name of any generation of Hugging Face's files to one spelling, for comparison.

    Hub files and versions 4.41 to 4.51 write ``language_model.model.*`` and ``vision_tower.vision_model.*``; 4.52 to
    4.57 hold ``model.language_model.*`` and ``model.vision_tower.vision_model.*``; 5 holds ``model.vision_tower.*``
    without ``vision_model``; and 5 saves ``language_model.model.*`` beside ``vision_tower.*``.
    """
    name = re.sub(r"^model\.(?=language_model\.|vision_tower\.|multi_modal_projector\.)", "", stored_name)
    name = re.sub(r"^language_model\.(model\.)?(?!lm_head)", "language_model.model.", name)
    return re.sub(r"^vision_tower\.(vision_model\.)?", "vision_tower.vision_model.", name)


def _letters(axes):
    return axes.replace("(", "").replace(")", "")
