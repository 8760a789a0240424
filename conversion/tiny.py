"""Models under a megabyte, for a port to begin with: no two axes of Gemma are alike, but N and G in PaliGemma 1."""

from typing import Any

from npgemma.config import Config, Gemma2Config, TextConfig, VisionConfig, alternating

_VISION = VisionConfig(width=40, mlp_width=88, layers=2, heads=5, image_size=42, patch_size=14)  # nine image tokens
_TEXT: dict[str, Any] = {
    "width": 72,
    "mlp_width": 136,
    "layers": 4,
    "query_heads": 6,
    "head_width": 20,
    "vocabulary": 1616,
}
_GEMMA_2: dict[str, Any] = {"query_pre_attn_scalar": 15.0, "sliding_window": 16, "layer_types": alternating(4)}
TINY = {
    "paligemma-tiny": Config(_VISION, TextConfig(**_TEXT, key_value_heads=1), image_token=1552),
    "paligemma2-tiny": Config(_VISION, Gemma2Config(**_TEXT, **_GEMMA_2, key_value_heads=3), image_token=1552),
}
