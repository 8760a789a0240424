"""``generate --mistake`` and ``diagnose --list``."""

import json

import numpy as np
import pytest
from test_command import assert_refused

from npgemma.command import main
from npgemma.porting.mistakes import MISTAKES

DETECT = ("--prompt", "detect red circle ; blue square")


@pytest.fixture
def run(capsys):
    """Run a command line on the embedded checkpoint; return its status, stdout and stderr."""

    def run(*arguments):
        try:
            status = main([*map(str, arguments)])
        except SystemExit as end:
            status = end.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def test_the_library_is_listed(run):
    status, out, _ = run("diagnose", "--list")
    assert status == 0
    assert [line for line in out.splitlines() if not line.startswith(" ")] == list(MISTAKES)
    report = json.loads(run("diagnose", "--list", "--json")[1])
    assert [row["id"] for row in report] == list(MISTAKES)
    assert all(set(row) == {"id", "says", "made_by", "place"} for row in report)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_an_answer_with_a_mistake_is_another_one(run, backend):
    _, right, silent = run(*DETECT, "--backend", backend)
    assert "on purpose" not in silent
    for id in ("image-scaled", "rope-interleaved", "pixels-255", "no-bos"):
        status, wrong, said = run(*DETECT, "--backend", backend, "--mistake", id)
        assert status == 0
        assert wrong != right
        assert MISTAKES[id].says in said
    # And they are gone.
    assert run(*DETECT, "--backend", backend)[1] == right


def test_boxes_with_a_mistake_are_other_ones(run):
    right, wrong = (json.loads(run(*DETECT, "--json", *more)[1]) for more in ([], ["--mistake", "locations-x-first"]))
    assert right["text"] == wrong["text"]
    assert right["objects"] != wrong["objects"]


def test_mistakes_that_cannot_be_made_are_refused(run):
    assert_refused(run("--mistake", "rope-interleave"), "rope-interleaved")
    assert_refused(run("--mistake", "everything"), "diagnose --list")
    assert_refused(run("--mistake", "no-post-norms"), "PaliGemma 2")
    assert_refused(run("--mistake", "silu", "--backend", "torch", "--static"), "static")
    assert_refused(run("diagnose"), "--list")


@pytest.mark.slow
def test_diagnose_names_the_mistake_of_a_trace(run, tmp_path):
    trace = tmp_path / "port.safetensors"
    assert run("trace", "--out", trace, "--max-tokens", 1, "--mistake", "exact-gelu")[0] == 0
    status, out, _ = run("diagnose", trace, "--json")
    report = json.loads(out)
    assert (status, report["verdict"], report["prompt"]) == (1, "mistake", "caption en")
    [found] = report["mistakes"]
    assert found["name"] == "exact-gelu"
    assert found["place"].endswith("block.0/geglu.0/gate_BTF")
    assert found["explained_error"] < 1e-5 < found["own_error"]
    np.savez(tmp_path / "half.npz", **{"prefill.0/run_blocks.0/final_BTD": np.full((1, 1, 144), 1 / 3, np.float16)})
    assert json.loads(run("diagnose", tmp_path / "half.npz", "--json")[1])["dtype"] == "float16"


def test_diagnose_of_what_is_no_trace(run, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    np.savez(tmp_path / "x.npz", foreign=np.ones(3))
    np.savez(tmp_path / "empty.npz")
    for name, said in [("x.safetensors", "complete"), ("x.npz", "no array that the reference knows"), ("y", "no such")]:
        assert_refused(run("diagnose", tmp_path / name), said)
    assert_refused(run("diagnose", tmp_path / "empty.npz"), "no array")
