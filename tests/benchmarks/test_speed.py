"""speed.py and its command: stages beside their limits, on either backend, on a checkpoint or on stand-in weights."""

import json

import numpy as np
import pytest

import cli
import conversion
import npgemma
import torch_ref
from npgemma.benchmarks import machine, speed
from npgemma.config import PUBLISHED, Config, TextConfig, VisionConfig
from npgemma.fast import blas
from npgemma.params import leaves

STAGES = ["vision tower", "prefill", "token, batch 1", "token, batch 3"]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    """Measure limits that take no second; their numbers mean nothing here."""
    monkeypatch.setattr(speed, "limits", lambda backend: {"bytes_per_second": 1e10, "operations_per_second": 1e11})


@pytest.mark.parametrize("arguments", [[], ["--dtype", "bfloat16"], ["--dtype", "int8"], ["--backend", "torch"]])
def test_every_stage_is_measured(arguments, capsys):
    assert cli.main(["bench", "--json", "--batches", "1", "3", "--tokens", "2", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert list(report["stages"]) == STAGES
    for stage in report["stages"].values():
        assert stage["seconds"] > 0
        assert stage["percent"] == pytest.approx(100 * stage["limit"] / stage["seconds"])
    assert report["stages"]["token, batch 3"]["tokens_per_second"] > 0
    assert report["model"]["parameters"] == sum(x.size for *_, x in leaves(npgemma.load().params))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_step_of_learning_is_measured(backend, capsys):
    assert cli.main(["bench", "--backward", "--json", "--backend", backend]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["all_seconds"]) == 5
    assert min(report["all_seconds"]) <= report["seconds"] <= max(report["all_seconds"])
    assert cli.main(["bench", "--backward", "--dtype", "bfloat16"]) == 2
    assert "float32 or float64" in capsys.readouterr().err


def test_the_table_shows_the_stages(capsys):
    assert cli.main(["bench", "--batches", "1", "3", "--tokens", "1"]) == 0
    out, _ = capsys.readouterr()
    assert all(any(line.startswith(stage) for line in out.splitlines()) for stage in STAGES)
    assert f"OpenBLAS's {blas.kernel()} kernel" in out


def test_the_table_says_what_holds_the_kernels_back(monkeypatch, capsys):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert cli.main(["bench", "--batches", "1", "--tokens", "1"]) == 0
    assert "OPENBLAS_CORETYPE=Haswell" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--batches", "0"], "above 0"),
        (["--tokens", "many"], "above 0"),
        (["--size", "paligemma-9000b"], "paligemma-3b-224"),
        (["--size", "paligemma-3b-224", "--checkpoint", "x"], "either --size or --checkpoint"),
        (["--backend", "torch", "--dtype", "int8"], "int8"),
        (["--checkpoint", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(arguments, says, capsys):
    try:
        status = cli.main(["bench", *arguments])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8"])
def test_stand_in_weights_have_the_sizes_of_real_ones(dtype, tmp_path, monkeypatch, capsys):
    vision = VisionConfig(width=24, mlp_width=40, layers=2, heads=3, image_size=28, patch_size=7)
    sizes = {"width": 30, "mlp_width": 56, "layers": 3, "query_heads": 4, "key_value_heads": 1, "head_width": 10}
    config = Config(vision, TextConfig(**sizes, vocabulary=101, context_length=300), image_token=97)
    conversion.save(tmp_path, conversion.random_params(config, 0), config)
    read, _ = conversion.read_folder(tmp_path, dtype)
    for (name, _, real), (_, _, made) in zip(leaves(read), leaves(conversion.stand_in_params(config, dtype))):
        assert (made.shape, made.dtype, type(made)) == (real.shape, real.dtype, type(real)), name
    monkeypatch.setitem(PUBLISHED, "small", config)
    backends = ["numpy"] if dtype == "int8" else ["numpy", "torch"]
    for backend in backends:
        assert cli.main(["bench", "--size", "small", "--dtype", dtype, "--backend", backend, "--batches", "2"]) == 0
    assert "token, batch 2" in capsys.readouterr().out


def test_work_counts_the_matrices():
    """Of the 3B model, whose weights are counted otherwise: by declaration."""
    config = PUBLISHED["paligemma-3b-224"]
    from npgemma.params import declared

    text = [leaf for leaf in declared(config) if leaf.name.startswith("text.") and leaf.kind == "weight"]
    assert speed.work(config)["step_weights"] == sum(int(np.prod(leaf.shape)) for leaf in text)
    vision = [leaf for leaf in declared(config) if leaf.name.startswith("vision.") and leaf.kind == "weight"]
    products = 2 * config.image_tokens * sum(int(np.prod(leaf.shape)) for leaf in vision)
    attention = 4 * config.image_tokens**2 * config.vision.width * config.vision.layers
    assert speed.work(config)["vision"] == products + attention


def test_the_processor_is_named_where_it_can_be(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor : 0\nmodel name\t: Some Processor\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n\n" * 2
    )
    assert machine.processor(cpuinfo) == {"processor": "Some Processor", "bfloat16_instructions": ["avx512_bf16"]}
    assert machine.processor(tmp_path / "none")["bfloat16_instructions"] == []


def test_memory_is_reported():
    assert 1e7 < npgemma.load().backend.peak_bytes() < 1e12
    assert torch_ref.load().backend.peak_bytes() > 1e7
