"""The tables of docs/speed.md: what was measured of speed and memory, from the reports beside this folder."""

import json

from generated import ROOT


def each_device(table, kind):
    """Lay out the reports of a kind, a table for each device that was measured."""
    found = {}
    for path in sorted((ROOT / "reports").glob(f"{kind}_*.json")):
        report = json.loads(path.read_text())
        found.setdefault(report["device"], []).append(report)
    return "\n\n".join(map(table, found.values()))


def speed_table(reports):
    """Lay out the last bench of each kind on a device."""
    stages = list(dict.fromkeys(stage for report in reports for stage in report["stages"]))
    heads = [f"{report['backend']}, {report['model']['dtype']}" + ", static" * report["static"] for report in reports]
    rows = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for stage in stages:
        cells = []
        for report in reports:
            found = report["stages"].get(stage)
            cells.append(f"{found['seconds']:.2f} s ({found['percent']:.0f} %)" if found else "")
        rows.append(f"| {stage} | {' | '.join(cells)} |")
    loads = [f"{report['load_seconds']:.1f} s" for report in reports]
    peaks = [f"{report['peak_bytes'] / 1e9:.1f} GB" for report in reports]
    rows += [f"| load, bfloat16 file | {' | '.join(loads)} |", f"| peak memory | {' | '.join(peaks)} |"]
    limits = [report["limits"] for report in reports]
    read = [limit["bytes_per_second"] / 1e9 for limit in limits]
    product = [limit["operations_per_second"] / 1e9 for limit in limits]
    versions = {name: version for report in reports for name, version in report["machine"]["versions"].items()}
    versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    commits = " and ".join(sorted({report["commit"] for report in reports}))
    rows += [
        "",
        f"Measured {reports[0]['date']} on {where(reports[0])} ({versions}), commit "
        f"{commits}; in brackets, how much of the machine's limit was reached. In the same runs it read "
        f"{min(read):.0f} to {max(read):.0f} GB/s and multiplied matrices at {min(product):.0f} to {max(product):.0f} "
        "GFLOP/s.",
    ]
    return "\n".join(rows)


def where(report):
    """Say on what was measured."""
    machine = report["machine"]
    if "accelerator" in machine:
        return machine["accelerator"]
    known = machine.get("bfloat16_instructions")
    if "kernel" not in machine:
        return f"{machine['threads']} cores"
    narrow = f"bfloat16 instructions: {' and '.join(known) or 'none'}"
    return f"{machine['threads']} cores ({machine['processor']}; {narrow}; OpenBLAS's kernel: {machine['kernel']})"


def against_tables():
    """Lay out the last comparison with Hugging Face of each published size, on each device."""
    tables = []
    for path in sorted((ROOT / "reports").glob("against_hugging_face_*.json")):
        name, device = path.stem.removeprefix("against_hugging_face_").rsplit("_", 1)
        tables.append(
            f"{name}, random weights, bfloat16 file, on {device}:\n\n{against_table(json.loads(path.read_text()))}"
        )
    return "\n\n".join(tables)


# Which run is set against which of Hugging Face's: of the same precision, or the fastest that there is.
RIVALS = {
    "numpy float32": "Hugging Face float32",
    "numpy bfloat16": "Hugging Face bfloat16",
    "numpy int8": "Hugging Face bfloat16",
    "torch float32": "Hugging Face float32",
    "torch bfloat16": "Hugging Face bfloat16",
}


def against_table(report):
    """Lay out a comparison with Hugging Face: seconds, and how many times Hugging Face's they are."""
    runs = report["runs"]
    rows = [f"| | {' | '.join(runs)} |", f"|---|{'---:|' * len(runs)}"]
    for stage in (name for name in next(iter(runs.values())) if name not in ("rounds", "least")):
        divisor, unit = (1e9, "GB") if stage == "peak_bytes" else (1, "s")
        cells = []
        for run, found in runs.items():
            rival = runs.get(RIVALS.get(run))
            times = f" ({found[stage] / rival[stage]:.2f})" if rival else ""
            cells.append(f"{found[stage] / divisor:.2f} {unit}{times}")
        rows.append(f"| {stage.replace('peak_bytes', 'peak memory')} | {' | '.join(cells)} |")
    machine, rounds = report["machine"], len(next(iter(runs.values()))["rounds"])
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    rows += [
        "",
        "In brackets, how many times the seconds or bytes of Hugging Face in the same precision (int8: in bfloat16). "
        f"Measured {report['date']} on {where(report)} ({versions}), commit {report['commit']}; the middle figure of "
        f"{rounds} rounds.{least(runs)}",
    ]
    return "\n".join(rows)


def least(runs):
    """Say what the processor allows, in seconds and as brackets beside Hugging Face's."""
    if "numpy float32" not in runs:
        return ""

    def bracket(stage, run):
        """Return the least that a stage can take, and how many times Hugging Face's time that is."""
        seconds = runs[run]["least"][stage]
        return f"{seconds:.2f} s ({seconds / runs[RIVALS[run]][stage]:.2f})"

    return (
        f"\n\nThe least that was possible: to write as much new memory as the weights take in float32 took "
        f"{bracket('load', 'numpy float32')}; the multiplications and additions of the first token, at the rate of "
        f"one large product, take {bracket('first token', 'numpy float32')} in NumPy's float32 and "
        f"{bracket('first token', 'torch bfloat16')} in PyTorch's bfloat16."
    )


def first_token(name, runs):
    """Say how long image and prompt take; and how many times Hugging Face's time, of one day and processor."""
    run, rival = runs[name], runs.get(RIVALS.get(name))
    seconds = run["vision tower"] + run["prefill"]
    beside = rival and (run["date"], run["machine"]["processor"]) == (rival["date"], rival["machine"]["processor"])
    times = f" ({seconds / (rival['vision tower'] + rival['prefill']):.2f})" if beside else ""
    return f"{seconds:.2f} s{times}"


def full_size_tables():
    """Lay out every run of ``reports/full_size.py``, a table for each published size."""
    tables = []
    for path in sorted((ROOT / "reports").glob("full_size_*.json")):
        kept = json.loads(path.read_text())
        runs = kept["runs"]
        rows = [f"{kept['checkpoint']}:", "", f"| | {' | '.join(runs)} |", f"|---|{'---:|' * len(runs)}"]
        stages = ("load", "vision tower", "vision tower, all threads", "prefill", "prefill, all threads", "token")
        for stage in stages:
            rows.append(f"| {stage} | {' | '.join(f'{run[stage]:.2f} s' for run in runs.values())} |")
        rows.append(f"| first token | {' | '.join(first_token(name, runs) for name in runs)} |")
        peaks = [f"{run['peak_bytes'] / 1e9:.1f} GB" for run in runs.values()]
        over = [f"{(run['peak_bytes'] - run['weights_bytes']) / 1e9:.2f} GB" for run in runs.values()]
        measured = [f"{run['date']}, {run['commit']}, {run['machine']['load_before']:.1f}" for run in runs.values()]
        rows += [f"| peak memory | {' | '.join(peaks)} |", f"| of it over the weights | {' | '.join(over)} |"]
        rows += [f"| rounds | {' | '.join(str(len(run.get('rounds', [run]))) for run in runs.values())} |"]
        rows += [f"| processor | {' | '.join(run['machine']['processor'] for run in runs.values())} |"]
        rows += [f"| day, commit, load before | {' | '.join(measured)} |"]
        tables.append("\n".join(rows))
    return "\n\n".join(tables)
