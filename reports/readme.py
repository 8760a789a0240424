"""Writes all that is generated in README.md, docs/, examples/ and tiny/, figures too: ``python reports/readme.py``.

``python reports/readme.py measure`` first measures the parity of the embedded checkpoint (``reports/parity.json``);
``python reports/readme.py bench DIR [cpu|cuda]`` the speed of a checkpoint (``reports/bench_*.json``), which needs a
quiet machine.
"""

import json
import pathlib
import subprocess
import sys

from npgemma.benchmarks.runs import stamp

ROOT = pathlib.Path(__file__).parent.parent

# What is measured for the table of speeds, of a folder made by ``python -m conversion synthesize``.
BENCHED = {
    "cpu": ["numpy float32", "numpy bfloat16", "numpy int8", "torch float32", "torch bfloat16"],
    "cuda": ["torch float32", "torch bfloat16", "torch bfloat16 --static"],
}
CHECKPOINT = "paligemma-3b-224, random weights, bfloat16 file"


def measure_parity():
    """Run ``cli.py parity`` in every dtype and keep the reports."""
    reports = {}
    for dtype in ("float64", "float32", "bfloat16", "int8"):
        command = [sys.executable, ROOT / "cli.py", "parity", "--dtype", dtype, "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        worst = max(report["places"], key=lambda place: place["relative_l2"])
        reports[dtype] = {name: report[name] for name in ("prompt", "passed", "bound", "arrays")} | {"worst": worst}
    (ROOT / "reports" / "parity.json").write_text(json.dumps(reports, indent=2) + "\n")


def measure_speed(folder, device="cpu"):
    """Run ``cli.py bench`` once for each kind and keep the reports, with date and commit."""
    for kind in BENCHED[device]:
        backend, dtype, *static = kind.split()
        command = [sys.executable, ROOT / "cli.py", "bench", "--checkpoint", folder, "--json", "--device", device]
        command += ["--backend", backend, "--dtype", dtype, "--batches", "1", "2", "4", "16", *static]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        path = ROOT / "reports" / f"bench_{device}_{backend}_{dtype}{'_static' if static else ''}.json"
        path.write_text(json.dumps(stamp() | report | {"checkpoint": CHECKPOINT}, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        measure_parity()
    if sys.argv[1:2] == ["bench"]:
        measure_speed(*sys.argv[2:])
    from generated import documents, figures, one_file

    (ROOT / one_file.FILE).write_text(one_file.page(), encoding="utf-8")
    documents.write_all()
    figures.write_all()
