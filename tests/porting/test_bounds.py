"""budgets.py: its limits are the measurements of reports/budgets.json, with a margin."""

import json
import sys
from pathlib import Path

import pytest

import npgemma
from npgemma.porting.bounds import LARGEST_OWN_ERROR, MARGIN, budget_of
from npgemma.probe.manifest import Manifest, checkpoint_hash

ROOT = Path(__file__).resolve().parents[2]
REPORT = json.loads((ROOT / "reports" / "budgets.json").read_text())
# Limits that are farther above what these programs show: sums in float64 are exact but for the last digit, and a
# softmax or a norm in float64 depends on the mathematical library.
LOOSE = {("float64", kind) for kind in ("attention weights", "norm", "sum")}


def test_the_report_is_of_the_embedded_checkpoint():
    assert REPORT["checkpoint"] == checkpoint_hash(npgemma.load().params)
    assert REPORT["layers"] is None
    assert set(REPORT["measured"]) == set(LARGEST_OWN_ERROR)


@pytest.mark.parametrize(
    ("dtype", "kind"), [(dtype, kind) for dtype in LARGEST_OWN_ERROR for kind in LARGEST_OWN_ERROR[dtype]]
)
def test_a_limit_is_from_two_to_twelve_times_the_largest_measured(dtype, kind):
    largest = max(program.get(kind, 0.0) for program in REPORT["measured"][dtype].values())
    limit = MARGIN * LARGEST_OWN_ERROR[dtype][kind]
    assert 2 * largest <= limit <= (100 if (dtype, kind) in LOOSE else 12) * largest


def test_it_is_measured_as_reported():
    sys.path.insert(0, str(ROOT / "reports"))
    import budgets

    found = budgets.measure(npgemma.embedded_checkpoint(), "bfloat16", layers=1)
    assert set(found) == {"NumPy", "twin"}
    for kind, largest in found["twin"].items():
        assert 0 < largest <= 1.3 * max(program.get(kind, 0.0) for program in REPORT["measured"]["bfloat16"].values())


def test_every_array_of_a_manifest_has_its_budget():
    model = npgemma.load()
    manifest = Manifest(model.params)
    with npgemma.record(watch=manifest.watch) as trace:
        model.generate(npgemma.example_image(), "caption en", max_new_tokens=1)
    words = {name: "I64" if name.endswith("ids_BT") else "F32" for name in trace}
    told = {entry["name"]: entry["budget"] for entry in json.loads(manifest.as_json(words, budget_of))["arrays"]}
    assert told["prefill.0/ids_BT"] == dict.fromkeys(LARGEST_OWN_ERROR, 0.0)
    assert told["prefill.0/run_blocks.0/block.0/geglu.0/gate_BTF"]["float32"] == pytest.approx(9e-7)
    assert set(told) == set(manifest.entries)
    assert budget_of(manifest.entries["prefill.0/run_blocks.0/final_BTD"])["bfloat16"] == pytest.approx(6.6e-3)
