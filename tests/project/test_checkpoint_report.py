"""checkpoint_report.py and ``--report``: what users send us holds everything, and is JSON."""

import json
import math
import subprocess
import sys

import checkpoint_report
import pytest
from generated import ROOT

from npgemma.config import PUBLISHED
from npgemma.errors import InputError

PLACES = [
    {
        "place": "prefill.0",
        "worst": "prefill.0/x_BTD",
        "relative_l2": 1e-6,
        "norm_ratio": 1.0,
        "percent_of_bound": 10.0,
    },
    {"place": "step.*", "worst": "step.1/y_BTD", "relative_l2": 2e-6, "norm_ratio": 1.0, "percent_of_bound": 20.0},
]
MEASURED = [
    {"measurement": "every named array", "dtype": "float32", "image": "photo", "prompt": "ocr", "places": PLACES},
    {"measurement": "every named array", "dtype": "float32", "image": "example", "prompt": "ocr", "places": PLACES[:1]},
    {"measurement": "padded", "dtype": "bfloat16", "backend": "torch", "percent_of_bound": 3.25},
    {"measurement": "published numbers", "dtype": "float32", "variant": "mix"},
]


def test_the_summary_has_the_worst_of_each_kind():
    assert checkpoint_report.summary(MEASURED) == [
        "every named array, float32: 20.0 % of the bound used at most (photo; ocr; step.1/y_BTD)",
        "padded, bfloat16: 3.2 % of the bound used at most (torch)",
        "published numbers, float32: variant mix",
    ]


def test_the_document_says_what_was_measured_and_where(checkpoint):
    tests = [{"test": "a", "outcome": "skipped", "reason": "needs a CUDA device"}]
    document = checkpoint_report.document(checkpoint, MEASURED, tests)
    assert document["measurements"] == MEASURED
    assert document["tests"] == tests
    assert document["versions"].keys() >= {"python", "numpy", "torch"}
    assert document["checkpoint"]["config"]["text"]["layers"] > 0
    assert len(document["checkpoint"]["sha256"]["config.json"]) == 64
    assert str(checkpoint) not in json.dumps(document)


def test_a_folder_that_cannot_be_read_is_told_without_its_path(tmp_path):
    told = checkpoint_report.checkpoint(tmp_path)["error"]
    assert "config.json" in told
    assert str(tmp_path) not in told


def test_what_is_infinitely_far_is_still_json(tmp_path):
    path = tmp_path / "report.json"
    far = [MEASURED[2] | {"percent_of_bound": math.inf, "norm_ratio": (math.nan, 1.0)}]
    checkpoint_report.write(path, checkpoint_report.document(tmp_path, far, []))
    [found] = json.loads(path.read_text(), parse_constant=pytest.fail)["measurements"]
    assert found == far[0] | {"percent_of_bound": "inf", "norm_ratio": ["nan", 1.0]}


def test_the_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("of the last run")
    with pytest.raises(ValueError, match="JSON compliant"):
        checkpoint_report.write(path, {"places": [1, 2, math.nan]})
    assert path.read_text() == "of the last run"
    with pytest.raises(InputError, match="cannot write"):
        checkpoint_report.write(tmp_path / "nowhere" / "report.json", {})
    assert list(tmp_path.iterdir()) == [path]


def run(*arguments, cwd):
    """Run the checkpoint tests as a process."""
    command = [sys.executable, "-m", "pytest", *map(str, arguments), "-p", "no:cacheprovider"]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.mark.slow
def test_the_report_of_a_run(random_folder, tmp_path):
    """A folder elsewhere, the report in the working directory."""
    (tmp_path / "cwd").mkdir()
    path = ROOT / "tests" / "project" / "test_checkpoint.py"
    result = run(path, "--checkpoint", random_folder, "--report", "report.json", cwd=tmp_path / "cwd")
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((tmp_path / "cwd" / "report.json").read_text())
    outcomes = {test["test"].partition("::")[2]: test for test in report["tests"]}
    assert outcomes["test_every_named_array_in_float64"]["outcome"] == "passed"
    assert outcomes["test_published_numbers[float32]"] | {"test": ""} == {
        "test": "",
        "outcome": "skipped",
        "reason": "needs a published PaliGemma 3B at 224 pixels: pass --checkpoint DIR",
    }
    assert report["checkpoint"]["config"]["text"]["vocabulary"] != PUBLISHED["paligemma-3b-224"].text.vocabulary
    asked = {(each["dtype"], each.get("image")) for each in report["measurements"]}
    assert asked == {("float64", "photo")} | {(d, i) for d in ("float32", "bfloat16") for i in ("photo", "example")}
    for each in report["measurements"]:
        for place in each.get("places", []):
            assert place.keys() >= {"place", "worst", "relative_l2", "norm_ratio", "percent_of_bound"}
    for line in checkpoint_report.summary(report["measurements"]):
        assert line in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", [".", "nowhere/report.json"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, name):
    result = run(ROOT / "tests" / "project" / "test_checkpoint.py", "--collect-only", "--report", name, cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"found '{name}'" in result.stderr


@pytest.mark.slow
def test_a_run_that_is_stopped_writes_no_report(tmp_path):
    (tmp_path / "test_stop.py").write_text("def test_stop(checkpoint):\n    raise KeyboardInterrupt\n")
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    settings = ["--rootdir", tmp_path, "-c", "/dev/null", "-o", f"pythonpath={ROOT} {ROOT / 'tests'}"]
    result = run(tmp_path / "test_stop.py", *settings, "--report", "report.json", cwd=tmp_path)
    assert result.returncode == pytest.ExitCode.INTERRUPTED, result.stdout + result.stderr
    assert "not written" in result.stdout
    assert not (tmp_path / "report.json").exists()
