"""What the checks measured: a summary in lines, and a document that users can send us."""

import datetime
import hashlib
import importlib.metadata
import math
import os
import pathlib
import platform
import subprocess

from conversion.folder import describe
from npgemma.porting.parity import published

ROOT = pathlib.Path(__file__).parents[3]
PACKAGES = ("npgemma", "numpy", "torch", "safetensors", "sentencepiece", "pillow")


def used(measurement):
    """Return how much of its bound a measurement used, in percent; None if it is not of that kind."""
    if "places" in measurement:
        return max((place["percent_of_bound"] for place in measurement["places"]), default=math.inf)
    return measurement.get("percent_of_bound")


def summary(measurements):
    """Return lines: for every kind of measurement and dtype the one that used most of its bound, and what is odd."""
    groups = {}
    for measurement in measurements:
        groups.setdefault((measurement["measurement"], measurement["dtype"]), []).append(measurement)
    lines = []
    for (kind, dtype), group in groups.items():
        if any(used(measurement) is None for measurement in group):
            values = ({k: v for k, v in each.items() if k not in ("measurement", "dtype")} for each in group)
            lines += [f"{kind}, {dtype}: " + ", ".join(f"{k} {v}" for k, v in each.items()) for each in values]
            continue
        worst = max(group, key=used)
        where = [worst[key] for key in ("backend", "image", "prompt") if key in worst]
        if "blocks" in worst:
            counts = [f"{worst['blocks'][tower]} of {count} {tower}" for tower, count in worst["of_blocks"].items()]
            where.append(" and ".join(counts) + " blocks")
        if "places" in worst:
            where.append(max(worst["places"], key=lambda place: place["percent_of_bound"])["worst"])
        lines.append(f"{kind}, {dtype}: {used(worst):.1f} % of the bound used at most ({'; '.join(where)})")
    return lines


def document(parity):
    """Return all that was measured as values for JSON; of the checkpoint what it holds, not where it lies."""
    about = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
    }
    found = {"checkpoint": checkpoint(parity), "tests": parity.tests, "measurements": parity.measurements}
    return _finite(about | found)


def checkpoint(parity):
    """Return what identifies a checkpoint: sizes, dtypes, and digests of its small files."""
    found = describe(parity.source)
    tensors, known = found["tensors"], [parity.source.file(name) for name in ("config.json", "tokenizer.model")]
    return {
        "published_size": published.size_of(parity.config),
        "config": found["config"],
        "parameters": found["parameters"],
        "bytes": found["bytes"],
        "tensor_dtypes": {dtype: sum(t["dtype"] == dtype for t in tensors) for dtype in {t["dtype"] for t in tensors}},
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in known if path.is_file()},
    }


def _finite(value):
    """Replace numbers that JSON does not have (arrays of other shapes are infinitely far) by their names."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit():
    """Return the project's commit, or None where this is no checkout or git is missing."""
    if not (ROOT / ".git").exists():
        return None
    try:
        result = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return None
    return result.stdout.strip() or None
