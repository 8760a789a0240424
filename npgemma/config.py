"""The sizes of a model: `PUBLISHED` has those of Google's.

``conversion/hub_config.py`` reads others from a checkpoint of the *hub*, the company Hugging Face's site, from which
models are downloaded.

*Next:* ``ops.py``. *Skip on a first reading:* `Gemma2Config` and `alternating`, until ``gemma2.py``.
"""

from dataclasses import dataclass
from typing import Any

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
    def head_width(self) -> int:
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
    head_width: int  # not always width / query_heads: Gemma 2 2B has 256, and not 2304 / 8 = 288
    vocabulary: int  # rows of the embedding table
    context_length: int = 8192  # the most tokens of image, prompt and answer together
    epsilon: float = 1e-6  # in RMSNorm
    rope_theta: float = 10000.0  # explained in ``rope.py``


@dataclass(frozen=True, kw_only=True)
class Gemma2Config(TextConfig):
    """Sizes of the Gemma 2 decoder, the text model of PaliGemma 2: those of Gemma, and what ``gemma2.py`` adds."""

    # Scores are divided by its square root: the head width in 3B and 10B, width / query_heads in 28B.
    query_pre_attn_scalar: float = 256.0
    attention_softcap: float = 50.0
    final_softcap: float = 30.0
    sliding_window: int = 4096  # tokens that a layer with `SLIDING` attention looks back on, the newest one included
    layer_types: tuple[str, ...]  # of each layer, `SLIDING` or `FULL`


# The hub's words for whether a layer of Gemma 2 has a sliding window.
SLIDING, FULL = "sliding_attention", "full_attention"


def alternating(layers: int) -> tuple[str, ...]:
    """Return the layer types of every published Gemma 2: a sliding window in each second layer, from the first on."""
    return tuple(FULL if i % 2 else SLIDING for i in range(layers))


@dataclass(frozen=True)
class Config:
    """Sizes of a whole PaliGemma, and the ids of its special tokens."""

    vision: VisionConfig
    text: TextConfig  # Gemma2Config in PaliGemma 2
    # The id that Hugging Face's prompts have where image tokens go. The model never looks it up.
    image_token: int = IMAGE_TOKEN
    pad_token: int = 0  # fills up the shorter rows of a batch
    eos_tokens: tuple[int, ...] = (1,)  # each of them ends an answer
    bos_token: int = 2  # begins every text

    @property
    def image_tokens(self) -> int:
        """Tokens that one image becomes: one for each patch."""
        return (self.vision.image_size // self.vision.patch_size) ** 2

    def image_tokens_of(self, pixels: Any) -> int:
        """Tokens that a prompt's images become: pixels (B, Y, X, 3) hold one a prompt, (B, I, Y, X, 3) hold I."""
        return self.image_tokens * (1 if pixels.ndim == 4 else pixels.shape[1])


def _gemma_2(layers: int, **sizes: int) -> Gemma2Config:
    return Gemma2Config(layers=layers, layer_types=alternating(layers), vocabulary=257216, **sizes)


_GEMMA = TextConfig(
    width=2048, mlp_width=16384, layers=18, query_heads=8, key_value_heads=1, head_width=256, vocabulary=257216
)
_GEMMA_2 = {
    "3b": _gemma_2(26, width=2304, mlp_width=9216, query_heads=8, key_value_heads=4, head_width=256),
    "10b": _gemma_2(42, width=3584, mlp_width=14336, query_heads=16, key_value_heads=8, head_width=256),
    "28b": _gemma_2(
        46, width=4608, mlp_width=36864, query_heads=32, key_value_heads=16, head_width=128, query_pre_attn_scalar=144
    ),
}


def _vision(image_size: int) -> VisionConfig:
    return VisionConfig(width=1152, mlp_width=4304, layers=27, heads=16, image_size=image_size, patch_size=14)


_SIZES = (224, 448, 896)
PUBLISHED = {f"paligemma-3b-{size}": Config(_vision(size), _GEMMA) for size in _SIZES}
# The end of a turn of Gemma 2's chat, 107, ends an answer too.
PUBLISHED |= {
    f"paligemma2-{name}-{size}": Config(_vision(size), text, eos_tokens=(1, 107))
    for name, text in _GEMMA_2.items()
    for size in _SIZES
}
