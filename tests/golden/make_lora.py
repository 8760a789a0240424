"""Writes ``tests/golden/lora``: adapters of peft for the golden folder ``hub``, and the merged models' float64 logits.

Run ``python tests/golden/make_lora.py`` to write them again; the tests need no peft.
"""

import pathlib
import shutil
import sys
import warnings

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import PaliGemmaForConditionalGeneration

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HUB = ROOT / "tests" / "golden" / "hub"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
KINDS = {
    "plain": {"r": 4, "lora_alpha": 6, "target_modules": ATTENTION + MLP},
    "rank_stabilised": {"r": 4, "lora_alpha": 3, "use_rslora": True, "target_modules": ["q_proj", "out_proj", "fc1"]},
    "patterns": {
        "r": 3, "lora_alpha": 5, "target_modules": [*ATTENTION, "linear", "patch_embedding"],
        "rank_pattern": {"k_proj": 2, r"layers\.0\.self_attn\.q_proj": 5}, "alpha_pattern": {"v_proj": 1},
    },
    "saved_modules": {
        "r": 2, "lora_alpha": 2, "target_modules": ["v_proj"], "modules_to_save": ["linear", "post_layernorm"],
    },
    "saved_table": {
        "r": 2, "lora_alpha": 2, "target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
    },
    "table": {"r": 3, "lora_alpha": 4, "target_modules": ["embed_tokens", "down_proj"]},
}  # fmt: skip


def pixels_of(size):
    """Return two images that need not be stored."""
    return np.cos(0.7 * np.arange(2 * size * size * 3)).reshape(2, size, size, 3)


def main():
    """Write every kind of adapter."""
    for seed, (kind, settings) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        folder = ROOT / "tests" / "golden" / "lora" / kind
        shutil.rmtree(folder, ignore_errors=True)
        base = PaliGemmaForConditionalGeneration.from_pretrained(HUB, dtype=torch.float32, attn_implementation="eager")
        model = get_peft_model(base, LoraConfig(**settings))
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(0.2 * torch.randn(weight.shape))
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        merged = model.double().merge_and_unload().eval()
        config = merged.config
        tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        ids = torch.randint(4, config.text_config.vocab_size - 5, (2, 7))
        pixels = torch.from_numpy(pixels_of(config.vision_config.image_size)).permute(0, 3, 1, 2)
        images = torch.full((2, tokens), config.image_token_index)
        whole = torch.cat([images, ids], 1)
        with torch.no_grad():
            # All is prefix: token types of 0 see each other.
            logits = merged(
                input_ids=whole, pixel_values=pixels.double(), token_type_ids=torch.zeros_like(whole),
                attention_mask=torch.ones_like(whole),
            ).logits  # fmt: skip
        save_file({"ids": ids, "logits": logits.float()}, folder / "expected.safetensors")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
