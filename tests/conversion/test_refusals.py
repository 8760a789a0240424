"""Folders that are something else than PaliGemma as the hub has it: each is refused in a sentence that says what."""

import itertools
import json
import os
import re

import numpy as np
import pytest
from support import CONFIGS, rewrite

import cli
import conversion
from conversion import safetensors_file
from conversion.hub_cache import locate
from conversion.refusals import FAMILIES
from conversion.summary import summarize
from conversion.write import write_folder
from npgemma.errors import InputError
from npgemma.fast.bfloat16 import narrow

CONFIG = CONFIGS["two key/value heads"]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 4953412480\n"


@pytest.fixture
def saved(tmp_path):
    conversion.save(tmp_path / "model", conversion.random_params(CONFIG, 0), CONFIG)
    return tmp_path / "model"


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder, says):
    with pytest.raises(InputError, match=says) as caught:
        conversion.read_checkpoint(folder)
    assert "\n" not in str(caught.value)


KINDS = {
    "pointer": (lambda path: path.write_text(POINTER), "git lfs pull"),
    "pipe": (os.mkfifo, "a pipe or a device, not a file"),
    "device": (lambda path: path.symlink_to(os.devnull), "a pipe or a device, not a file"),
    "folder": (os.mkdir, "a folder, not a file"),
}


CHECKPOINT = (
    "config.json", "model.safetensors", "generation_config.json", "vae-oid.npz", "preprocessor_config.json",
    "processor_config.json", "adapter_config.json",
)  # fmt: skip
TOKENIZERS = ("tokenizer.model", "pointer"), ("tokenizer.json", "pointer")


@pytest.mark.parametrize(("name", "kind"), [*itertools.product(CHECKPOINT, KINDS), *TOKENIZERS])
def test_what_is_no_regular_file_is_named(saved, name, kind):
    make, says = KINDS[kind]
    (saved / name).unlink(missing_ok=True)
    make(saved / name)
    refused(saved, f"{name}' is .*{says}")


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "compressed-tensors"])
def test_quantised_folders_are_named_by_their_config(saved, method):
    change_config(saved, quantization_config={"quant_method": method})
    refused(saved, f"quantised by {method}")


@pytest.mark.parametrize(
    "end", ["qweight", "scales", "weight.absmax", "weight.quant_state.x__nf4", "SCB", "weight_scale", "g_idx"]
)
def test_quantised_tensors_are_named_where_the_config_says_nothing(saved, end):
    name = "language_model.model.layers.1.mlp.up_proj"
    rewrite(saved, lambda n, d, a: [(n, d, a), *([(f"{name}.{end}", d, a)] if n == f"{name}.weight" else [])])
    refused(saved, f"quantised .tensor {name}.{end}")


def test_mlx_folders(saved):
    path = saved / "model.safetensors"
    tensors = safetensors_file.read(path)
    entries = [(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]
    safetensors_file.write(path, entries, [np.array(tensor.array) for tensor in tensors], {"format": "mlx"})
    refused(saved, "written for MLX")
    change_config(saved, quantization={"group_size": 64, "bits": 4})
    refused(saved, "quantised by MLX")


@pytest.mark.parametrize("kind", FAMILIES)
def test_other_families_are_named(saved, kind):
    change_config(saved, model_type=kind)
    refused(saved, f"found {FAMILIES[kind]} .'{kind}'")


def test_a_paligemma_with_another_decoder(saved):
    config = json.loads((saved / "config.json").read_text())
    change_config(saved, text_config=config["text_config"] | {"model_type": "gemma3_text"})
    refused(saved, "paligemma with a 'gemma3_text' decoder")


@pytest.mark.parametrize("prefix", ["base_model.model.", "module.", "_orig_mod."])
def test_a_prefixed_state_dict_is_named(saved, prefix):
    def change(name, dtype, array):
        head = [(prefix + "lm_head.weight", dtype, array)] if name.endswith("embed_tokens.weight") else []
        return [(prefix + "model." + name, dtype, array), *head]

    rewrite(saved, change)
    refused(saved, f"begin with '{prefix}'")


@pytest.mark.parametrize("end", ["base_layer.weight", "lora_A.default.weight"])
def test_an_unmerged_state_dict_is_named(saved, end):
    name = "language_model.model.layers.1.self_attn.q_proj."
    rewrite(saved, lambda n, d, a: [(n.replace(name + "weight", name + end), d, a)])
    refused(saved, "unmerged LoRA")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.gguf", "model.sbs", "flax_model.msgpack", "model.pth"])
def test_other_formats_are_named(saved, name):
    (saved / "model.safetensors").rename(saved / name)
    refused(saved, f"are in '{name}'")


def test_shards_of_two_checkpoints(tmp_path):
    stored = conversion.random_params(CONFIG, 0)
    names = {}
    for dtype in ("float32", "bfloat16"):
        conversion.save(tmp_path / "one", stored, CONFIG, dtype)
        arrays = {t.name: t.wide(t.array) for t in safetensors_file.read(tmp_path / "one" / "model.safetensors")}
        size = (sum(array.nbytes for array in arrays.values()) // 3 + 5000) // (1 if dtype == "float32" else 2)
        write_folder(tmp_path / dtype, CONFIG, lambda leaf, arrays=arrays: arrays[leaf.stored_name], dtype, size)
        names[dtype] = sorted(path.name for path in (tmp_path / dtype).glob("model-*"))
    assert names["float32"] == names["bfloat16"]
    (tmp_path / "bfloat16" / names["bfloat16"][0]).replace(tmp_path / "float32" / names["float32"][0])
    refused(tmp_path / "float32", "two checkpoints .*BF16.*F32")


def test_nothing_is_read_before_the_small_files(saved, monkeypatch):
    """Tokenizer, codebook and end tokens are found wrong while no weight has been touched."""

    def touched(*_):
        raise AssertionError("a weight was read")

    monkeypatch.setattr("conversion.folder.build", touched)
    for name in ("tokenizer.model", "tokenizer.json", "vae-oid.npz", "generation_config.json"):
        (saved / name).write_text("{]")
        refused(saved, name)
        (saved / name).unlink()


FREQUENCIES = 10000 ** -(np.arange(0, 10, 2) / 10)
BUFFERS = {
    "vision_tower.vision_model.embeddings.position_ids": (np.arange(16)[None], "I64"),
    "model.vision_tower.embeddings.position_ids": (np.arange(16), "F32"),
    "language_model.model.layers.1.self_attn.rotary_emb.inv_freq": (FREQUENCIES, "F64"),
    "model.language_model.layers.1.self_attn.rotary_emb.inv_freq": (narrow(FREQUENCIES), "BF16"),
    "model.language_model.rotary_emb.original_inv_freq": (FREQUENCIES, "F16"),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_a_constant_of_older_versions_is_held_against_our_own(saved, name):
    values, word = BUFFERS[name]
    values = values.astype(safetensors_file.NUMPY[word])
    content = (saved / "model.safetensors").read_bytes()
    for array, right in ((values, True), (values[..., :-1], False), (values + values.flat[1], False)):
        (saved / "model.safetensors").write_bytes(content)
        entry = name, word, array.astype(values.dtype)
        rewrite(saved, lambda *old, entry=entry: [old, *([entry] if old[0].endswith("post_layernorm.bias") else [])])
        if right:
            conversion.read_checkpoint(saved)
        else:
            refused(saved, f"tensor {name} .*constant")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.safetensors.index.json", {"weight_map": {"a": "b"}}, "index.json is not read"),
        ("model.safetensors.index.json", {"weight_map": {"a": "model.safetensors"}}, None),
        ("model.safetensors.index.json", "[", "is not valid JSON"),
        ("adapter_model.safetensors", "", "adapter_model.safetensors is not read"),
        ("model.fp16\x1b.safetensors", "", r"model.fp16\\u001b.safetensors is not read"),
        ("pytorch_model.bin", "", None),
        ("generation_config.json", {"do_sample": True, "num_beams": 1, "repetition_penalty": 1.2},
         "sets do_sample, repetition_penalty"),
        ("generation_config.json", {"eos_token_id": 1, "bad_words_ids": None, "max_length": 20}, None),
        ("config.json", {"auto_map": {"AutoModel": "x.py"}}, "names code of its own"),
        ("config.json", {"tie_word_embeddings": False}, "declares an output head of its own"),
        ("config.json", {"attention_dropout": 0.1, "torch_dtype": "float16"}, None),
        ("chat_template.jinja", "x", "has a chat template"),
        ("processor_config.json", {"chat_template": "x"}, "has a chat template"),
        ("processor_config.json", {"image_processor": {"resample": 3}}, None),
        ("processor_config.json", {"image_processor": {"resample": 2}}, "prepares images otherwise"),
    ],
)  # fmt: skip
def test_what_is_declared_or_held_and_not_followed_is_said(saved, capsys, name, content, says):
    path = saved / name
    if isinstance(content, dict):
        content = json.dumps((json.loads(path.read_text()) if path.exists() else {}) | content)
    path.write_text(content)
    assert cli.main(["inspect", "--checkpoint", str(saved)]) == 0
    printed = [line for line in capsys.readouterr().out.split("\n") if line.startswith("note ")]
    assert len(printed) == (says is not None)
    assert says is None or re.search(says, printed[0])


def test_siglips_pooling_head_is_passed_over_and_said(saved):
    name = "vision_tower.vision_model.head.probe"
    rewrite(saved, lambda n, d, a: [(n, d, a), *([(name, d, a)] if n.endswith("post_layernorm.bias") else [])])
    assert "pooling head" in summarize(saved)["notes"][0]


# Hub ids


@pytest.fixture
def cached(saved, tmp_path, monkeypatch):
    """Hugging Face's cache with the checkpoint in it, as its library lays it out: snapshots of links to blobs."""
    folder = tmp_path / "hub" / "models--google--paligemma-tiny"
    snapshot = folder / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    for path in saved.iterdir():
        path.rename(folder / "blobs" / path.name)
        (snapshot / path.name).symlink_to(os.path.relpath(folder / "blobs" / path.name, snapshot))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc123")
    for name in ("HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_hub_id_is_found_in_the_cache(cached, tmp_path, monkeypatch):
    assert locate("google/paligemma-tiny") == cached
    conversion.read_checkpoint(locate("google/paligemma-tiny"))
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert locate("google/paligemma-tiny") == cached
    (cached.parent.parent / "refs" / "main").unlink()
    assert locate("google/paligemma-tiny") == cached


def test_a_hub_id_that_is_not_there_says_how_to_download_it(cached):
    with pytest.raises(InputError, match=r"licence at https://huggingface.co/google/other.*hf download google/other"):
        locate("google/other")


def test_a_damaged_cache_says_what_to_do(cached):
    main = cached.parent.parent / "refs" / "main"
    main.unlink()
    os.mkfifo(main)
    with pytest.raises(InputError, match="a pipe"):
        locate("google/paligemma-tiny")


def test_paths_are_left_alone(cached, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "paligemma-tiny").mkdir()
    for path in ("google/paligemma-tiny", "nowhere", "a/b/c", "/a/b", "../a", "./a", "a/" + "b" * 5000, "a/b\n"):
        assert str(locate(path)) == str(type(cached)(path))


def test_a_missing_tokenizer_is_found_before_the_weights_are_read(saved, monkeypatch, capsys):
    monkeypatch.setattr("conversion.folder.build", lambda *_: pytest.fail("a weight was read"))
    assert cli.main(["--checkpoint", str(saved), "--prompt", "caption en"]) == 2
    assert "no tokenizer" in capsys.readouterr().err
