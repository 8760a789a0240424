"""reports/full_size.py on a small folder: every kind of run is measured, and kept beside the earlier ones."""

import json

import full_size
import pytest

from conversion.folder import describe, open_folder
from npgemma.benchmarks import runs
from npgemma.config import PUBLISHED

NUMBERS = {"load", "vision tower", "prefill", "token", "peak_bytes", "weights_bytes"}


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The file in which the runs of a size named "small" are kept."""
    monkeypatch.setattr(full_size, "ROOT", tmp_path)
    (tmp_path / "reports").mkdir()
    return tmp_path / "reports" / "full_size_small.json"


def test_runs_are_measured_and_kept(gemma_2_folder, kept, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setitem(PUBLISHED, "small", open_folder(gemma_2_folder)[0])
    full_size.main("small", str(gemma_2_folder), "numpy int8")
    full_size.main("small", str(gemma_2_folder), "Hugging Face float32")
    found = json.loads(kept.read_text())["runs"]
    assert list(found) == ["numpy int8", "Hugging Face float32"]
    for run in found.values():
        assert all(run[name] > 0 for name in NUMBERS)
        assert run["peak_bytes"] > run["weights_bytes"]
    parameters = describe(gemma_2_folder)["parameters"]
    assert [run["weights_bytes"] for run in found.values()] == [parameters, 4 * parameters]


def test_of_several_rounds_the_middle_figure_counts(monkeypatch, kept, gemma_2_folder):
    monkeypatch.setitem(PUBLISHED, "small", open_folder(gemma_2_folder)[0])
    loads, asked = iter([3.0, 10.0, 1.0, 20.0, 2.0, 30.0]), []

    def apart(measure, run, folder):
        asked.append(run)
        return {"date": "today"}, {"load": next(loads)}

    monkeypatch.setattr(runs, "apart", apart)
    full_size.main("small", str(gemma_2_folder), "first", "second", rounds=3)
    found = json.loads(kept.read_text())["runs"]
    assert asked == ["first", "second"] * 3
    assert (found["first"]["load"], found["second"]["load"]) == (2, 20)
    assert [each["load"] for each in found["first"]["rounds"]] == [3, 1, 2]
    assert found["first"]["date"] == "today"


def test_another_size_is_refused(gemma_2_folder, kept):
    with pytest.raises(SystemExit, match="paligemma-3b-224"):
        full_size.main("paligemma-3b-224", str(gemma_2_folder), "numpy int8")
    assert not kept.exists()
