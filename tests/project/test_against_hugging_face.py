"""reports/against_hugging_face.py on a small folder: its figures are all there, and readme.py lays them out."""

import json

import against_hugging_face
import pytest
from generated import speed

from conversion.folder import open_folder
from npgemma.benchmarks import runs
from npgemma.config import PUBLISHED

TOKENS = [f"token, batch {batch}" for batch in (1, 2, 4, 16)]
FIGURES = ["load", "first token", *TOKENS, "peak_bytes", "whole process", "least", "rounds"]


@pytest.fixture
def measured(gemma_2_folder, monkeypatch, tmp_path):
    """Measure some runs in two rounds; return the report."""
    monkeypatch.setitem(PUBLISHED, "small", open_folder(gemma_2_folder)[0])
    monkeypatch.setattr(against_hugging_face, "ROOT", tmp_path)
    monkeypatch.setattr(against_hugging_face, "ROUNDS", 2)
    (tmp_path / "reports").mkdir()

    def measure(*names):
        monkeypatch.setitem(against_hugging_face.RUNS, "cpu", names)
        against_hugging_face.main(str(gemma_2_folder))
        return json.loads((tmp_path / "reports" / "against_hugging_face_small_cpu.json").read_text())

    return measure


def test_the_figures_of_our_own_runs(measured, monkeypatch):
    monkeypatch.setattr(runs, "apart", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(against_hugging_face, "whole_process", lambda *_: 1.0)
    limits = {"bytes_per_second": 1e10, "operations_per_second": 1e11}
    monkeypatch.setattr(against_hugging_face.speed, "limits", lambda backend: limits)
    report = measured("numpy int8")
    found = report["runs"]["numpy int8"]
    assert list(found) == FIGURES
    assert set(found["least"]) == {"load", "first token", *TOKENS}
    for name in ("first token", *TOKENS):
        first, second = (each[name] for each in found["rounds"])
        assert found[name] == pytest.approx((first + second) / 2)
    assert found["least"]["token, batch 16"] > found["least"]["token, batch 1"]
    assert "the middle figure of 2 rounds" in speed.against_table(report)


def test_the_figures_of_hugging_face(measured, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(against_hugging_face, "ROUNDS", 1)
    report = measured("Hugging Face float32")
    found = report["runs"]["Hugging Face float32"]
    assert list(found) == FIGURES
    assert set(found["least"]) == {"load"}
    assert all(found[name] > 0 for name in ("load", "first token", *TOKENS, "peak_bytes", "whole process"))
    assert {"torch", "transformers"} <= set(report["machine"]["versions"])
