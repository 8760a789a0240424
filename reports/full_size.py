"""Published sizes at full size: ``python reports/full_size.py NAME DIR [--rounds N] RUN...``.

``DIR`` is the folder that ``python -m conversion synthesize NAME DIR`` wrote. A RUN is ``"numpy float32"``, ``"numpy
bfloat16"``, ``"numpy int8"``, ``"torch float32"``, ``"torch bfloat16"``, ``"Hugging Face float32"`` or ``"Hugging Face
bfloat16"``. Each is a process of its own, one after the other, and takes an image, a short prompt and four tokens. A
stage that takes less than ten seconds is done again three times, and the middle one of these counts. Before a load,
files are read and memory is touched as ``against_hugging_face.py`` does.

With ``--rounds`` the runs are done in turn, so often, and of every figure the middle one counts; all are kept.

``reports/full_size_NAME.json`` keeps every run, those of earlier commands too, each with its date, its commit and how
busy the machine was. The machine should have nothing else to do. In float32 a model of 3 billion parameters needs 12 GB
of memory here, and 17.5 GB in Hugging Face's transformers.
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "reports")]

from against_hugging_face import measure, size_of  # noqa: E402

from npgemma.benchmarks import runs  # noqa: E402
from npgemma.fast.dtypes import DTYPES  # noqa: E402

SHORT, AGAIN, STEPS = 10, 3, 4


def figures(run, folder):
    """Return when and on what a run was measured, and its figures: seconds, those of all threads together, bytes."""
    about, found = measure(run, folder, "cpu", tokens=STEPS - 1, repeats=AGAIN, longest=SHORT)
    vision, prefill, token = found["stages"].values()
    rate = found.get("limits", {}).get("operations_per_second")
    return about, {
        "load": found["load_seconds"],
        "vision tower": vision["seconds"],
        "prefill": prefill["seconds"],
        "vision tower, all threads": vision["processor_seconds"],
        "prefill, all threads": prefill["processor_seconds"],
        "token": token["seconds"],
        "peak_bytes": found["peak_bytes"],
        "weights_bytes": found["model"]["parameters"] * DTYPES[found["model"]["dtype"]].bytes,
    } | ({"operations_per_second": rate} if rate else {})


def main(name, folder, *names, rounds=1):
    """Measure runs one after the other, each in a process of its own, and keep them beside the earlier ones."""
    if size_of(folder) != name:
        raise SystemExit(
            f"{folder} holds {size_of(folder)}, not {name}: make it with python -m conversion synthesize {name}"
        )
    path = ROOT / "reports" / f"full_size_{name}.json"
    for run, found in runs.in_turn(figures, names, rounds, folder):
        abouts, measured = zip(*found)
        kept = {"checkpoint": f"{name}, random weights, bfloat16 file", "runs": {}}
        kept = json.loads(path.read_text()) if path.exists() else kept
        kept["runs"][run] = abouts[0] | runs.middle(measured) | ({"rounds": measured} if len(measured) > 1 else {})
        path.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    main(asked.name, asked.folder, *asked.runs, rounds=asked.rounds)
