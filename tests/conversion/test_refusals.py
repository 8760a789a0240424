"""Folders that are something else than PaliGemma as the hub has it: each is refused in a sentence that says what."""

import json
import os

import numpy as np
import pytest
from support import CONFIGS, rewrite

import cli
import conversion
from conversion import safetensors_file
from conversion.hub_cache import locate
from conversion.refusals import FAMILIES
from conversion.write import write_folder
from npgemma.errors import InputError
from npgemma.tokenizer import Tokenizer

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


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.model", "tokenizer.json", "generation_config.json",
             "vae-oid.npz"],
)  # fmt: skip
def test_a_pointer_of_git_lfs_is_named(saved, name):
    (saved / name).write_text(POINTER)
    refused(saved, "git lfs pull")


def test_a_pointer_in_place_of_an_index_or_a_shard(saved):
    (saved / "model.safetensors").rename(saved / "one.safetensors")
    index = saved / "model.safetensors.index.json"
    index.write_text(POINTER)
    refused(saved, "git lfs pull")
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    (saved / "one.safetensors").write_text(POINTER)
    refused(saved, "git lfs pull")


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


def test_paths_are_left_alone(cached, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "paligemma-tiny").mkdir()
    for path in ("google/paligemma-tiny", "nowhere", "a/b/c", "/a/b", "../a", "./a"):
        assert str(locate(path)) == str(type(cached)(path))


def test_a_tokenizer_that_is_a_pointer(tmp_path):
    (tmp_path / "tokenizer.model").write_text(POINTER)
    with pytest.raises(InputError, match="git lfs pull"):
        Tokenizer(tmp_path)


def test_a_missing_tokenizer_is_found_before_the_weights_are_read(saved, monkeypatch, capsys):
    monkeypatch.setattr("conversion.folder.build", lambda *_: pytest.fail("a weight was read"))
    assert cli.main(["--checkpoint", str(saved), "--prompt", "caption en"]) == 2
    assert "no tokenizer" in capsys.readouterr().err
