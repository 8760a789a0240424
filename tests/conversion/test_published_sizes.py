"""Checkpoints of every published size, as files without content: names, shapes and the memory that they would need."""

import json
import math

import pytest

import cli
import conversion
import npgemma
import torch_ref
from conversion import folder as reading
from conversion.__main__ import main as conversion_command
from conversion.folder import INDEX, describe
from conversion.hub_config import to_hub
from conversion.layout import stored_leaves
from conversion.tiny import TINY
from npgemma import axes as alphabet
from npgemma.config import PUBLISHED
from npgemma.errors import InputError
from npgemma.image import load_pixels
from npgemma.machinery.backend import to_numpy
from npgemma.porting.difference import relative_l2

SHARD_BYTES = 5_000_000_000
# What the hub's files hold: PaliGemma 1 and the three of PaliGemma 2, in bfloat16.
GIGABYTES = {"paligemma-3b": 5.85, "paligemma2-3b": 6.06, "paligemma2-10b": 19.33, "paligemma2-28b": 55.30}


def write_sparse(folder, config):
    """Write a folder's headers, and files of the right length that take no place on the disk."""
    (folder / "config.json").write_text(json.dumps(to_hub(config, "bfloat16")))
    shards, places = [{}], {}
    for leaf in stored_leaves(config).values():
        size = 2 * math.prod(leaf.stored_shape)
        end = max((entry["data_offsets"][1] for entry in shards[-1].values()), default=0)
        if end + size > SHARD_BYTES and shards[-1]:
            shards.append({})
            end = 0
        entry = {"dtype": "BF16", "shape": list(leaf.stored_shape), "data_offsets": [end, end + size]}
        shards[-1][leaf.stored_name] = entry
    for i, entries in enumerate(shards, 1):
        name = f"model-{i:05}-of-{len(shards):05}.safetensors"
        header = json.dumps(entries).encode()
        with open(folder / name, "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + max(entry["data_offsets"][1] for entry in entries.values()))
        places |= dict.fromkeys(entries, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_shapes_and_size(name, tmp_path, capsys):
    write_sparse(tmp_path, PUBLISHED[name])
    found = describe(tmp_path)
    layers = PUBLISHED[name].text.layers
    assert len(found["tensors"]) == 27 * 16 + 9 + layers * (11 if "2-" in name else 9)
    assert found["bytes"] / 1e9 == pytest.approx(GIGABYTES[name.rpartition("-")[0]], rel=0.01)
    assert cli.main(["inspect", "--checkpoint", str(tmp_path)]) == 0
    assert f"{found['parameters']:,} parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "dtype", "needed"),
    [
        ("paligemma2-3b-224", "float32", 12.1),
        ("paligemma2-10b-224", "int8", 9.7),
        ("paligemma2-28b-224", "bfloat16", 0),  # used as it lies in the file
        ("paligemma2-28b-896", "int8", 27.7),
        ("paligemma2-28b-224", "float32", 110.6),
    ],
)
def test_the_memory_that_the_weights_need_is_estimated(name, dtype, needed, tmp_path, monkeypatch):
    write_sparse(tmp_path, PUBLISHED[name])
    _, tensors = reading.open_folder(tmp_path)
    assert reading._bytes(tensors, dtype, in_place=0) / 1e9 == pytest.approx(needed, rel=0.01, abs=0.01)
    if needed:
        monkeypatch.setattr(reading, "available_memory", lambda: 9e9)
        with pytest.raises(InputError, match=rf"need {needed:.1f} GB as {dtype}, but 9.0 GB are free"):
            conversion.read_folder(tmp_path, dtype)


def test_every_published_size_can_be_synthesized_by_name(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("conversion.__main__.synthesize", lambda name, *_: asked.append(name))
    for name in PUBLISHED:
        assert conversion_command(["synthesize", name, str(tmp_path)]) == 0
    sizes = ("paligemma-3b", "paligemma2-3b", "paligemma2-10b", "paligemma2-28b")
    assert asked == [f"{size}-{pixels}" for size in sizes for pixels in (224, 448, 896)]


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_model_is_the_same_in_both_backends(name, tmp_path):
    assert conversion_command(["synthesize", name, str(tmp_path)]) == 0
    ours, theirs = (backend.load(tmp_path, dtype="float32") for backend in (npgemma, torch_ref))
    text = alphabet.sizes(ours.config)["text"]
    assert len(set(text.values())) == len(text) - (text["K"] == 1)
    ids = [ours.tokenizer.prompt("detect red circle ; blue square, and where is the cat?")]
    pixels = load_pixels(npgemma.example_image(), ours.config.vision.image_size)
    found, right = (to_numpy(model.logits(pixels, ids, len(ids[0]))) for model in (theirs, ours))
    assert relative_l2(right, found) < 1e-5
    assert right.argmax(-1).std() > 0
