"""Parts of a checkpoint that lie elsewhere (``--base``, ``--config``, ``--tokenizer``) reach the twin as well."""

import dataclasses
import json
import os
import pickle
import re

import numpy as np
import pytest

import conversion
import npgemma
from conversion import big_vision, safetensors_file
from conversion.folder import describe
from npgemma.command import main
from npgemma.machinery.backend import to_numpy
from npgemma.params import leaves
from npgemma.porting.backends import twin_of
from npgemma.probe.manifest import checkpoint_hash

MODULE = "language_model.model.layers.1.self_attn.q_proj"


@pytest.fixture
def npz(tmp_path, random_folder):
    """Options of an npz, which has neither sizes nor tokenizer."""
    params, config = conversion.read_folder(random_folder)
    tree = {name: array for name, _, array in leaves(params)}
    with open(tmp_path / "model.npz", "wb") as file:
        big_vision.write_file(file, config, tree.__getitem__, "float32")
    return {
        "checkpoint": tmp_path / "model.npz",
        "config": random_folder / "config.json",
        "tokenizer": random_folder / "tokenizer.model",
    }


@pytest.fixture
def adapter(tmp_path, random_folder):
    """Options of a LoRA adapter that does not say where its base is."""
    shapes = {tensor["stored_name"]: tensor["shape"] for tensor in describe(random_folder)["tensors"]}
    rows, columns = shapes[MODULE + ".weight"]
    parts = {"lora_A": np.full((4, columns), 0.1, np.float32), "lora_B": np.full((rows, 4), 0.1, np.float32)}
    entries = [(f"base_model.model.{MODULE}.{name}.weight", "F32", part.shape) for name, part in parts.items()]
    safetensors_file.write(tmp_path / "adapter_model.safetensors", entries, parts.values())
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4}))
    return {"checkpoint": tmp_path, "base": random_folder}


@pytest.fixture(params=["npz", "adapter"])
def parts(request):
    return request.getfixturevalue(request.param)


def run(command, parts, image, *arguments):
    options = [word for name, path in parts.items() for word in (f"--{name}", str(path))]
    return main([command, *options, "--image", str(image), "--max-new-tokens", "1", *map(str, arguments)])


def assert_same_weights(report, dtype):
    """Measured: 8e-7, and 0.03 in int8, where random weights leave narrow margins and tokens may differ."""
    assert not report["missing"]
    assert max(place["relative_l2"] for place in report["places"]) < (0.1 if dtype == "int8" else 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_parity(parts, image, capsys, dtype):
    status = run("parity", parts, image, "--dtype", dtype, "--json")
    report = json.loads(capsys.readouterr().out)
    assert_same_weights(report, dtype)
    assert status == 0 or dtype == "int8"


def test_parity_writes_a_report(parts, tmp_path):
    options = [word for name, path in parts.items() for word in (f"--{name}", str(path))]
    assert main(["parity", *options, "--report", str(tmp_path / "report.json")]) == 0


@pytest.mark.parametrize("arguments", [["--dtype", "int8"], ["--backend", "torch"]])
def test_explain(parts, image, tmp_path, arguments):
    assert run("explain", parts, image, "--out", tmp_path / "page.html", *arguments) == 0
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', (tmp_path / "page.html").read_text(), re.DOTALL)[1])
    assert_same_weights(facts["parity"], facts["parity"]["dtype"])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_twin_differs_in_weights_and_backend_only(parts, dtype):
    places = {name: path for name, path in parts.items() if name != "checkpoint"}
    model = npgemma.load(parts["checkpoint"], **places, resize="bilinear", dtype=dtype)
    twin, exact = twin_of(model), npgemma.load(parts["checkpoint"], **places)
    for field in dataclasses.fields(model):
        if field.name not in ("params", "backend"):
            assert getattr(twin, field.name) is getattr(model, field.name), field.name
    for (name, _, a), (_, _, b) in zip(leaves(exact.params), leaves(twin.params), strict=True):
        assert np.array_equal(a, to_numpy(b)), name


def test_a_pickled_model_finds_its_parts_from_another_folder(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {name: os.path.relpath(path) for name, path in parts.items()}
    model = npgemma.load(places.pop("checkpoint"), **places)
    monkeypatch.chdir("/")
    assert checkpoint_hash(pickle.loads(pickle.dumps(model)).params) == checkpoint_hash(model.params)
