"""The table of docs/supported.md: what is read, and what is refused by name."""

from conversion import hub_config, lora, preprocessing, refusals, summary
from conversion.write import FILE_DTYPES
from npgemma.config import PUBLISHED
from npgemma.files import tokenizer_json


def supported_table():
    """Return what is read and what is refused by name, from the tables that the readers themselves use."""
    families = ", ".join(summary.NAMES[name] for name in hub_config.FAMILIES)
    sizes = ", ".join(f"`{name}`" for name in PUBLISHED)
    others = ", ".join(dict.fromkeys(refusals.FAMILIES.values()))
    rows = [
        ("model", families, others),
        ("published sizes", f"{sizes}; any other size by its config.json", ""),
        ("weights", f"safetensors, in one file or shards; big_vision's npz: {', '.join(FILE_DTYPES)}",
         f"quantised weights, MLX, Git LFS pointers, {', '.join(f'`{end}`' for end in refusals.OTHER_FILES)}"),
        ("names", "; ".join([*(said for _, said in summary.GENERATIONS), "constants that older versions saved"]),
         "unmerged and prefixed state dicts"),
        ("tokenizer", f"tokenizer.model; tokenizer.json of type {' or '.join(tokenizer_json.MODELS)}; added tokens",
         "other models, normalizers, pre-tokenizers and decoders"),
        ("adapter", "LoRA, also rank-stabilised, with patterns and saved modules",
         ", ".join([*lora.OTHER_KINDS.values(), *lora.CHANGED_BASE])),
        ("preprocessing", f"any filter, mean, deviation and factor; `--resize {'` or `'.join(preprocessing.FILTERS)}`",
         "crops, padding, and any other size than config.json's"),
        ("place", "a folder, an npz file, or a hub id that the cache holds", ""),
    ]  # fmt: skip
    lines = ["| | read | refused by name |", "|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
