"""The sizes of a model. `PUBLISHED` has those of Google's; ``conversion/hub_config.py`` reads others from a folder."""

from dataclasses import dataclass

# The published tokenizer's pieces end below this id, which Hugging Face's prompts use as ``<image>``.
IMAGE_TOKEN = 257152


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the SigLIP vision tower."""

    width: int
    mlp_width: int
    layers: int  # blocks
    heads: int
    image_size: int  # of the square image, in pixels
    patch_size: int
    epsilon: float = 1e-6  # in LayerNorm

    @property
    def head_width(self):
        """Channels of one head: the width shared out evenly."""
        return self.width // self.heads


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the Gemma decoder."""

    width: int
    mlp_width: int
    layers: int  # blocks
    query_heads: int
    key_value_heads: int
    head_width: int  # not width / query_heads: Gemma chooses it freely
    vocabulary: int  # rows of the embedding table
    context_length: int = 8192  # the most tokens of image, prompt and answer together
    epsilon: float = 1e-6  # in RMSNorm
    rope_theta: float = 10000.0


@dataclass(frozen=True)
class Config:
    """Sizes of a whole PaliGemma, and the ids of its special tokens."""

    vision: VisionConfig
    text: TextConfig
    # The id that Hugging Face's prompts have where image tokens go. The model never looks it up.
    image_token: int = IMAGE_TOKEN
    pad_token: int = 0
    eos_token: int = 1
    bos_token: int = 2

    @property
    def image_tokens(self):
        """Tokens that one image becomes: one for each patch."""
        return (self.vision.image_size // self.vision.patch_size) ** 2


def _published(image_size):
    return Config(
        VisionConfig(width=1152, mlp_width=4304, layers=27, heads=16, image_size=image_size, patch_size=14),
        TextConfig(
            width=2048, mlp_width=16384, layers=18, query_heads=8, key_value_heads=1, head_width=256, vocabulary=257216
        ),
    )


PUBLISHED = {f"paligemma-3b-{size}": _published(size) for size in (224, 448, 896)}
