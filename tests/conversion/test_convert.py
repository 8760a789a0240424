"""python -m conversion SRC DST: bit for bit there and back, read by transformers, and never half finished."""

import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from support import CONFIGS, inputs, on_numpy, rewrite

import conversion
import npgemma
from conversion import safetensors_file
from conversion.__main__ import main
from conversion.hugging_face import write_tokenizer_files
from conversion.write import FILE_DTYPES
from npgemma.fast.dtypes import DTYPES
from npgemma.image import Preprocessing
from npgemma.params import leaves
from npgemma.tokenizer import Tokenizer

FAMILIES = "two key/value heads", "Gemma 2"


def run(*arguments):
    assert main([*map(str, arguments)]) == 0


def stored(folder):
    """Every tensor of a folder, as its bits."""
    return {
        tensor.name: (tensor.dtype, np.array(tensor.array))
        for path in folder.glob("*.safetensors")
        for tensor in safetensors_file.read(path)
    }


def arrays(path):
    """Every array of an npz file, as its bits."""
    with np.load(path) as file:
        return {name: (file[name].dtype, file[name]) for name in file.files}


def assert_same(expected, found):
    assert expected.keys() == found.keys()
    for name, (dtype, array) in expected.items():
        assert dtype == found[name][0]
        assert np.array_equal(array.view(np.uint8), found[name][1].view(np.uint8)), name


@pytest.fixture(params=FAMILIES)
def model(request, tmp_path):
    """As many rows as pieces, as big_vision has it."""
    config = CONFIGS[request.param]
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, vocabulary=97))
    return config, conversion.random_params(config, 0), tmp_path


@pytest.mark.parametrize("dtype", FILE_DTYPES)
def test_there_and_back_is_bit_exact(model, dtype):
    config, params, folder = model
    conversion.save(folder / "hub", params, config, dtype)
    run(folder / "hub", folder / "a.npz")
    run(folder / "a.npz", folder / "back", "--config", folder / "hub" / "config.json")
    first, second = stored(folder / "hub"), stored(folder / "back")
    table = "language_model.model.embed_tokens.weight"
    word, rows = second[table]
    assert rows.shape == (128, 30)  # room for the image token, and a multiple of 64
    second[table] = word, np.ascontiguousarray(rows[:97])
    assert_same(first, second)
    run(folder / "back", folder / "b.npz")
    assert_same(arrays(folder / "a.npz"), arrays(folder / "b.npz"))


def test_another_dtype(model):
    config, params, folder = model
    conversion.save(folder / "hub", params, config)
    conversion.save(folder / "narrow", params, config, "bfloat16")
    run(folder / "hub", folder / "a.npz", "--dtype", "bfloat16")
    run(folder / "narrow", folder / "b.npz")
    assert (folder / "a.npz").read_bytes()[:100] == (folder / "b.npz").read_bytes()[:100]
    assert_same(arrays(folder / "a.npz"), arrays(folder / "b.npz"))


@pytest.mark.parametrize("name", ["out", "out.npz"])
@pytest.mark.parametrize(
    ("word", "value", "dtype", "says"),
    [
        ("F32", 65520, "float16", "holds 65520, which float16 does not hold: --dtype bfloat16 holds it"),
        ("F32", -1e6, "float16", "holds 1e.06"),
        ("F32", np.nan, "float16", "holds nan, which float16 does not hold: download"),
        ("F32", 3.4e38, "bfloat16", "holds 3.4e.38"),
        ("F64", 1e39, "float32", "holds 1e.39"),
        ("F64", 1e39, "float64", None),
        ("F32", 65519, "float16", None),
    ],
)
def test_what_a_dtype_cannot_hold_is_refused_before_anything_is_written(
    tmp_path, capsys, recwarn, name, word, value, dtype, says
):
    config = CONFIGS["two key/value heads"]
    conversion.save(tmp_path / "hub", conversion.random_params(config, 0), config)

    def change(name, dtype, array):
        array = array.astype(safetensors_file.NUMPY[word])
        array.flat[-1] = value if name.endswith("1.mlp.fc1.weight") else array.flat[-1]
        return [(name, word, array)]

    rewrite(tmp_path / "hub", change)
    status = main([str(tmp_path / "hub"), str(tmp_path / name), "--dtype", dtype])
    assert (tmp_path / name).exists() == (says is None) == (status == 0)
    for dtype in DTYPES:
        conversion.read_folder(tmp_path / "hub", dtype)
    assert not recwarn
    assert says is None or re.search(f"fc1.weight .*{says}", capsys.readouterr().err)


def test_transformers_loads_what_is_written(model):
    transformers = pytest.importorskip("transformers")
    config, params, folder = model
    conversion.save(folder / "hub", params, config)
    run(folder / "hub", folder / "a.npz")
    run(folder / "a.npz", folder / "out", "--config", folder / "hub" / "config.json")
    loaded, info = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
        folder / "out", output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    pixels, ids, _, _ = inputs(config, "float32")
    whole = np.concatenate([np.full((2, config.image_tokens), config.image_token), ids], 1)
    whole = torch.from_numpy(whole)
    with torch.no_grad():
        expected = loaded.eval()(
            input_ids=whole, pixel_values=torch.from_numpy(pixels).permute(0, 3, 1, 2),
            attention_mask=torch.ones_like(whole), token_type_ids=torch.zeros_like(whole),
        ).logits.numpy()  # fmt: skip
    found = on_numpy(params, config).logits(pixels, ids, ids.shape[1])
    assert np.abs(expected[..., :97] - found).max() < 3e-5 * expected[..., :97].std()


def test_all_of_a_checkpoint_goes_with_it(tmp_path):
    run(npgemma.embedded_checkpoint(), tmp_path / "out")
    for name in ("tokenizer.model", "tokenizer.json", "vae-oid.npz"):
        assert (tmp_path / "out" / name).read_bytes() == (npgemma.embedded_checkpoint() / name).read_bytes()
    ours, theirs = npgemma.load(tmp_path / "out"), npgemma.load()
    assert dataclasses.replace(ours.config, text=theirs.config.text) == theirs.config
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == 1
    image = npgemma.example_image()
    assert ours.generate(image, max_new_tokens=3).token_ids == theirs.generate(image, max_new_tokens=3).token_ids


def test_preprocessing_and_an_adapter_are_converted(tmp_path):
    config = CONFIGS["two key/value heads"]
    conversion.save(tmp_path / "hub", conversion.random_params(config, 0), config)
    path = tmp_path / "hub" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resample": 2, "image_mean": [0.1, 0.2, 0.3]}))
    run(tmp_path / "hub", tmp_path / "out")
    assert conversion.read_checkpoint(tmp_path / "out")[-1] == Preprocessing(resample=2, mean=(0.1, 0.2, 0.3))
    golden = npgemma.embedded_checkpoint().parent / "tests" / "golden"
    run(golden / "lora" / "plain", tmp_path / "merged", "--base", golden / "hub")
    expected, _ = conversion.read_folder(conversion.Source.of(golden / "lora" / "plain", golden / "hub"))
    found, _ = conversion.read_folder(tmp_path / "merged")
    assert all(np.array_equal(a, b) for (_, _, a), (_, _, b) in zip(leaves(expected), leaves(found), strict=True))


def test_the_tokenizer_as_hugging_face_reads_it_says_the_same(tmp_path):
    """SentencePiece's pieces that are never cut are added tokens."""
    shutil.copy(npgemma.embedded_checkpoint() / "tokenizer.model", tmp_path)
    write_tokenizer_files(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (npgemma.embedded_checkpoint() / "tokenizer.json").read_bytes()
    ours, model = Tokenizer(tmp_path / "tokenizer.json"), Tokenizer(tmp_path / "tokenizer.model")
    for text in ("detect red circle\n", "a<loc0001>b <seg127><mask>", "\n\n x", "日本"):
        assert ours.encode(text) == model.encode(text), text


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_interrupted_nothing_looks_finished(model, name, monkeypatch, capsys):
    config, params, folder = model
    conversion.save(folder / "hub", params, config)
    calls = []

    def interrupt(self, *_):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr("npgemma.command.progress.Progress.report", interrupt)
    assert main([str(folder / "hub"), str(folder / name)]) == 130
    assert "stopped" in capsys.readouterr().err
    left = [path.name for path in folder.rglob("*") if "hub" not in path.parts]
    assert not any(part.endswith((".part", ".safetensors", ".npz")) or part == "config.json" for part in left)


def test_what_is_there_is_left_alone(model, capsys):
    config, params, folder = model
    conversion.save(folder / "hub", params, config)
    (folder / "a.npz").write_text("mine")
    for destination in (folder / "a.npz", folder / "hub", folder / "hub" / "config.json"):
        assert main([str(folder / "hub"), str(destination)]) == 2
        assert "is there already" in capsys.readouterr().err
    assert (folder / "a.npz").read_text() == "mine"
    assert main([str(folder / "nowhere"), str(folder / "b")]) == 2
    assert not os.path.exists(folder / "b")
