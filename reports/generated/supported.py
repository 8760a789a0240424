"""The tables of docs/supported.md and docs/robustness.md: what is read and refused, limits, what became of attacks."""

import pkgutil

from conversion import hub_config, lora, preprocessing, refusals, summary
from conversion.write import FILE_DTYPES
from generated.sources import report
from npgemma.config import PUBLISHED
from npgemma.files import tokenizer_json

# What has a limit, where it stands, and its unit.
LIMITS = (
    ("a JSON file", "npgemma.files.reading.MOST_BYTES", "bytes"),
    ("a message", "npgemma.files.foreign.MOST", "letters"),
    ("a name in it", "npgemma.files.foreign.WORD", "letters"),
    ("a size in config.json", "conversion.hub_config.LARGEST_SIZE", ""),
    ("layers of a tower", "conversion.hub_config.MOST_LAYERS", ""),
    ("a token's id", "npgemma.files.added_tokens.LARGEST_ID", ""),
)


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


def limits_table():
    """Return each limit with its number, as the readers themselves have it."""
    rows = [(what, f"{pkgutil.resolve_name(name):,} {unit}".strip(), f"`{name}`") for what, name, unit in LIMITS]
    return "\n".join(["| limit of | at most | in |", "|---|---:|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def attacks_table():
    """Return what became of the inputs of each kind, in the last run of all."""
    kept = report("attacks")
    names = list(next(iter(kept["kinds"].values())))
    rows = [[kind, *map(str, row.values())] for kind, row in kept["kinds"].items()]
    total = sum(row["inputs"] for row in kept["kinds"].values())
    lines = [
        f"| kind | {' | '.join(names)} |",
        "|---|" + "---:|" * len(names),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    said = "Seconds are the longest of a kind, megabytes the most, of a whole process with its libraries."
    return "\n".join([*lines, "", f"{total} inputs, {kept['date']}, commit {kept['commit']}. {said}"])
