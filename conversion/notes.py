"""What a checkpoint's folder declares or holds and npgemma does not follow, where other programs might."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from conversion.buffers import UNUSED
from conversion.folder import INDEX, INDEX_SHAPE, SINGLE, read_tensors
from conversion.head import HEADS
from conversion.layout import canonical
from conversion.preprocessing import SHAPE, said
from conversion.source import SMALL, Source
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.reading import read_json

# Settings of generation_config.json that change an answer, and where they change nothing.
NEUTRAL: dict[str, Any] = {
    "do_sample": False, "num_beams": 1, "repetition_penalty": 1, "no_repeat_ngram_size": 0, "guidance_scale": 1,
    "penalty_alpha": 0, "min_length": 0, "min_new_tokens": 0, "suppress_tokens": [], "begin_suppress_tokens": [],
    "bad_words_ids": [], "sequence_bias": {}, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "stop_strings": [],
}  # fmt: skip
ADAPTERS = "adapter_model.safetensors", "adapter_model.bin"


def notes_of(source: str | os.PathLike[str] | Source) -> list[str]:
    """Return a sentence for everything that a checkpoint, which can be read, holds or declares and nobody follows."""
    source = Source.of(source)
    notes: list[str] = []
    for part in () if source.is_npz else (_of_weights, _of_settings, _of_images):
        try:
            notes += part(source)
        except InputError as problem:  # of a file that is not read otherwise
            notes.append(str(problem))
    return notes


def _of_weights(source: Source) -> Iterator[str]:
    folder, config = source.weights, read_json(source.weights / "config.json", most=SMALL)
    read, unread = {SINGLE}, []
    if os.path.exists(folder / INDEX):
        named = set(read_json(folder / INDEX, INDEX_SHAPE, SMALL)["weight_map"].values())
        single = os.path.exists(folder / SINGLE)
        read, unread = ({SINGLE}, [INDEX] if named != {SINGLE} else []) if single else (named, [])
    unread += [path.name for path in sorted(folder.glob("*.safetensors")) if path.name not in {*read, *ADAPTERS}]
    unread += [name for name in ADAPTERS if os.path.exists(folder / name) and source.adapter != folder]
    if unread:
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        yield f"'{folder}' also holds {', '.join(shown(name, 80) for name in unread[:3])}{more}, which is not read"
    names = {canonical(name) for name in read_tensors(folder)}
    if any(name.startswith(UNUSED) for name in names):
        yield f"'{folder}' holds SigLIP's pooling head, which PaliGemma does not use"
    untied = False in (config.get("tie_word_embeddings"), config["text_config"].get("tie_word_embeddings"))
    if untied and not names & set(HEADS):
        yield f"'{folder / 'config.json'}' declares an output head of its own, but there is none: the table is used"
    if config.get("auto_map"):
        yield f"'{folder / 'config.json'}' names code of its own (auto_map), which is never run"


def _of_settings(source: Source) -> Iterator[str]:
    path = source.file("generation_config.json")
    document = read_json(path, most=SMALL) if os.path.exists(path) else {}
    changed = [name for name, value in NEUTRAL.items() if document.get(name) not in (None, value)]
    if changed:
        yield f"'{path}' sets {', '.join(changed)}, which is not followed: options such as --do-sample are"
    files = "processor_config.json", "tokenizer_config.json"
    holders = [
        path
        for path in map(source.file, files)
        if os.path.exists(path) and read_json(path, most=SMALL).get("chat_template")
    ]
    holders += filter(os.path.exists, map(source.file, ("chat_template.jinja", "chat_template.json")))
    if holders:
        yield f"'{holders[0]}' has a chat template, which is not applied: write prompts as in training"


def _of_images(source: Source) -> Iterator[str]:
    files: list[tuple[pathlib.Path, dict[str, Any]]] = list(said(source))
    for path, document in files[1:]:
        first, followed = files[0]
        apart = [
            name
            for name in SHAPE
            if None not in (document.get(name), followed.get(name)) and document[name] != followed[name]
        ]
        if apart:
            yield f"'{path}' has another {', '.join(apart)} than '{first}', which is followed"
