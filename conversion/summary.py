"""What a checkpoint is, in the few facts that a person asks for first."""

import dataclasses
import os
import re

from conversion import folder as reading
from conversion.hub_config import FAMILIES
from conversion.memory import available_memory
from conversion.notes import notes_of
from conversion.source import Source
from npgemma.config import PUBLISHED
from npgemma.errors import InputError
from npgemma.fast.dtypes import DTYPES
from npgemma.files.foreign import shown

NAMES = {"gemma": "PaliGemma 1", "gemma2": "PaliGemma 2"}
# How names begin in each generation of transformers' files.
GENERATIONS = (
    (r"language_model\.model\.|vision_tower\.vision_model\.", "the hub's, and transformers 4.41 to 4.51"),
    (r"model\.language_model\.|model\.vision_tower\.vision_model\.", "transformers 4.52 to 4.57"),
    (r"vision_tower\.(?!vision_model)", "saved by transformers 5"),
    (r"model\.vision_tower\.(?!vision_model)", "transformers 5 in memory"),
)


def summarize(source: str | os.PathLike[str] | Source) -> dict:
    """Return the facts about a checkpoint, without reading any weight; InputError as `conversion.folder.open_folder`.

    ``size`` is the published name or None, ``names`` the generation of the tensors' names, ``memory`` bytes by dtype.
    """
    source = Source.of(source)
    config, pairs = reading.open_folder(source)
    family = next(name for name, (kind, _) in FAMILIES.items() if kind is type(config.text))
    tensors = [tensor for _, tensor in pairs.values()]
    return {
        "family": NAMES[family],
        "size": _published(config),
        "resolution": config.vision.image_size,
        "dtype": "/".join(sorted({tensor.dtype for tensor in tensors})),
        "layout": _layout(source),
        "names": "big_vision's" if source.is_npz else _generation(tensor.name for tensor in tensors),
        "tokenizer": _tokenizer(source, config),
        "end_tokens": list(config.eos_tokens),
        "adapter": None if source.adapter is None else f"LoRA, merged at load onto {source.weights}",
        "memory": {dtype: reading._bytes(pairs, dtype, in_place=1) for dtype in DTYPES},
        "free": available_memory(),
        "notes": notes_of(source),
    }


def _published(config):
    """Return the name of the published size, whatever the rows of the table and the end tokens."""
    for name, known in PUBLISHED.items():
        text = dataclasses.replace(known.text, vocabulary=config.text.vocabulary)
        if (known.vision, text) == (config.vision, config.text):
            return name
    return None


def _layout(source):
    if source.is_npz:
        return "big_vision's npz"
    count = len(list(source.weights.glob("*.safetensors")))
    return "safetensors" if count == 1 else f"safetensors in {count} files"


def _generation(names):
    """Return the last generation of which a name is typical; the towers may be named by different ones."""
    fitting = {i for name in names for i, (pattern, _) in enumerate(GENERATIONS) if re.match(pattern, name)}
    return GENERATIONS[max(fitting, default=0)][1]


def _tokenizer(source, config):
    """Return what encodes text, how many ids it has, and what is to be said of it."""
    try:
        tokenizer = reading.open_words(source, config)
    except InputError as problem:
        return f"unusable: {problem}"
    if tokenizer is None:
        return "none: text needs tokenizer.model or tokenizer.json, --tokenizer FILE"
    added = [shown(token.content, 80) for token in tokenizer.added.values()]
    more = f", {len(added)} added ({', '.join(added[:3])}{', ...' if len(added) > 3 else ''})" if added else ""
    notes = "".join(f"; note: {note}" for note in tokenizer.notes[:3])
    return f"{tokenizer.path}, {tokenizer.size} ids{more}{notes}"
