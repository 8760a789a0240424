"""What a checkpoint's folder declares or holds and npgemma does not follow, where other programs might."""

import os

from conversion import lora
from conversion.buffers import UNUSED
from conversion.folder import INDEX, INDEX_SHAPE, SINGLE, open_folder, read_config, read_tensors
from conversion.head import HEADS
from conversion.layout import canonical
from conversion.preprocessing import said
from conversion.source import SMALL, Source
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.reading import read_json

# Settings of generation_config.json that change an answer, and where they change nothing.
NEUTRAL = {
    "do_sample": False, "num_beams": 1, "repetition_penalty": 1, "no_repeat_ngram_size": 0, "guidance_scale": 1,
    "penalty_alpha": 0, "min_length": 0, "min_new_tokens": 0, "suppress_tokens": [], "begin_suppress_tokens": [],
    "bad_words_ids": [], "sequence_bias": {}, "forced_bos_token_id": None, "forced_eos_token_id": None,
}  # fmt: skip
ADAPTERS = "adapter_model.safetensors", "adapter_model.bin"


def notes_of(source: str | os.PathLike[str] | Source) -> list[str]:
    """Return a sentence for everything that a checkpoint, which can be read, holds or declares and nobody follows."""
    source = Source.of(source)
    notes: list[str] = []
    for part in (_of_adapter,) if source.is_npz else (_of_adapter, _of_weights, _of_settings):
        try:
            notes += part(source)
        except InputError as problem:  # of a file that is not read otherwise
            notes.append(str(problem))
    return [shown(note) for note in notes]


def _of_adapter(source):
    if source.adapter is not None:
        yield from lora.notes(source.adapter, [leaf.stored_name for leaf, _ in open_folder(source)[1].values()])


def _of_weights(source):
    folder, names = source.weights, {canonical(name) for name in read_tensors(source.weights)}
    read = {SINGLE}
    if os.path.lexists(folder / INDEX):
        read = set(read_json(folder / INDEX, INDEX_SHAPE, SMALL)["weight_map"].values())
    others = [path.name for path in sorted(folder.glob("*.safetensors")) if path.name not in {*read, *ADAPTERS}]
    if os.path.lexists(folder / SINGLE):
        others = sorted({*others, *read, INDEX} - {SINGLE}) if read != {SINGLE} else others
    others += [name for name in ADAPTERS if os.path.exists(folder / name) and source.adapter != folder]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        yield f"of '{folder}' {', '.join(shown(name, 80) for name in others[:3])}{more} is not read"
    if any(name.startswith(UNUSED) for name in names):
        yield f"'{folder}' holds SigLIP's pooling head, which PaliGemma does not use"
    config = read_json(folder / "config.json", most=SMALL)
    untied = False in (config.get("tie_word_embeddings"), config["text_config"].get("tie_word_embeddings"))
    if untied and not names & set(HEADS):
        yield f"'{folder / 'config.json'}' declares an output head of its own, but there is none: the table is used"
    if config.get("auto_map"):
        yield f"'{folder / 'config.json'}' names code of its own (auto_map), which is never run"


def _of_settings(source):
    path = source.file("generation_config.json")
    document = read_json(path, most=SMALL) if os.path.lexists(path) else {}
    changed = [name for name, value in NEUTRAL.items() if document.get(name) not in (None, value)]
    if changed:
        yield f"'{path}' sets {', '.join(changed)}, which is not followed: options such as --do-sample are"
    for name in ("processor_config.json", "tokenizer_config.json", "chat_template.json", "chat_template.jinja"):
        path = source.file(name)
        if os.path.lexists(path) and (name.endswith("jinja") or read_json(path).get("chat_template")):
            yield f"'{path}' has a chat template, which is not applied: write prompts as in training"
    (path, followed), *others = [*said(source, read_config(source))] or [(None, None)]
    if any(other != followed for _, other in others):
        yield f"'{others[0][0]}' prepares images otherwise than '{path}', which is followed"
