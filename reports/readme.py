"""Writes the generated parts of README.md: ``python reports/readme.py``; ``test_readme.py`` compares them.

``python reports/readme.py measure`` first measures the parity of the embedded checkpoint (``reports/parity.json``);
``python reports/readme.py bench DIR [cpu|cuda]`` the speed of a checkpoint (``reports/bench_*.json``), which needs a
quiet machine.
"""

import ast
import datetime
import difflib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

# What is measured for the table of speeds, of a folder made by ``python -m conversion synthesize``.
BENCHED = {
    "cpu": ["numpy float32", "numpy bfloat16", "numpy int8", "torch float32", "torch bfloat16"],
    "cuda": ["torch float32", "torch bfloat16", "torch bfloat16 --static"],
}
CHECKPOINT = "paligemma-3b-224, random weights, bfloat16 file"

# The reader's path: file, what it teaches, what to try.
PATH = [
    ("axes.py", "the alphabet: how to read `q_BTNH`", "cover the table and say what `weight_BKGTS` is"),
    ("ops.py", "the operations everything is made of", "take the `1 +` out of `rms_norm` and run the tests"),
    ("attention.py", "the one formula both towers use", "print `weight_BKGTS.sum(-1)`"),
    ("image.py", "a file becomes numbers from -1 to 1", "give it a transparent image"),
    ("siglip.py", "an image becomes one vector for each patch", "move the image by one patch: what else changes?"),
    ("contrastive.py", "what SigLIP was trained with, beside CLIP's", "double a batch of strangers: which loss grows?"),
    ("projector.py", "the bridge between the towers", "compare its norm with `embed_tokens`'s"),
    ("tokenizer.py", "a prompt becomes ids", "print `prompt('caption en')`; put `<image>` into it"),
    ("rope.py", "positions as rotations", "add 100 in `mask.positions`: the answer stays. Why?"),
    ("mask.py", "who may look at whom", "make it causal: captions stay, but `detect red circle`?"),
    ("gemma.py", "the decoder", "give each query head its own keys: what else must change?"),
    ("paligemma.py", "the parts joined", "scale the image tokens like text: which tests notice?"),
    ("cache.py", "what past tokens leave behind", "how many bytes are 1000 tokens of the 3B model?"),
    ("generate.py", "from logits to an answer", "set the temperature to 0.01, to 100"),
    (
        "gemma2.py",
        "PaliGemma 2's decoder: four differences",
        "`diff` it with `gemma.py`; leave the cap out: same answer?",
    ),
    ("segmentation.py", "sixteen codes become a mask", "change one code: which part of the mask changes?"),
    ("answer.py", "an answer becomes boxes and masks", "divide by 1024 instead: what moves?"),
    ("sampling.py", "how an answer is chosen: the settings", "pass a temperature of 0"),
    ("backend.py", "what runs a model: NumPy or PyTorch", "print `npgemma.load().backend`"),
    ("model.py", "everything together", "let it choose rows without a piece"),
    ("config.py", "the sizes, those of the published models too", "read `PUBLISHED`"),
    ("params.py", "the weights, declared once", "count the parameters by hand"),
]


def code_lines(path):
    """Count lines that are neither blank, comment nor docstring."""
    text = path.read_text()
    hidden = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            hidden |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and i not in hidden for i, line in lines)


def changed_lines(module):
    """Count the lines of the twin that differ from the port."""
    ours, theirs = ((ROOT / package / module).read_text().splitlines() for package in ("npgemma", "torch_ref"))
    return sum(line[0] == "+" and line[:3] != "+++" for line in difflib.unified_diff(ours, theirs, n=0, lineterm=""))


def path_table():
    rows = ["| file | lines (of code) | lines that differ in the twin | teaches | try |", "|---|---:|---:|---|---|"]
    for name, teaches, attempt in PATH:
        path = ROOT / "npgemma" / name
        lines = f"{len(path.read_text().splitlines())} ({code_lines(path)})"
        differs = changed_lines(name) if (ROOT / "torch_ref" / name).exists() else "shared"
        rows.append(f"| [`{name}`](npgemma/{name}) | {lines} | {differs} | {teaches} | {attempt} |")
    return "\n".join(rows)


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
    return report["machine"].get("accelerator") or f"{report['machine']['threads']} cores"


def against_table(reports):
    """Lay out the last comparison with Hugging Face on a device."""
    [report] = reports
    runs = report["runs"]
    rows = [f"| | {' | '.join(runs)} |", f"|---|{'---:|' * len(runs)}"]
    for stage in (name for name in next(iter(runs.values())) if name != "rounds"):
        divisor, unit = (1e9, "GB") if stage == "peak_bytes" else (1, "s")
        cells = [f"{found[stage] / divisor:.2f} {unit}" for found in runs.values()]
        rows.append(f"| {stage.replace('peak_bytes', 'peak memory')} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {version}" for name, version in report["machine"]["versions"].items())
    rows += [
        "",
        f"Measured {report['date']} on {where(report)} ({versions}), commit {report['commit']}. To be "
        f"given as much memory as float32 weights need took {report['memory']['seconds']:.1f} s, without any loading.",
    ]
    return "\n".join(rows)


def measure_parity():
    """Run ``cli.py parity`` in every dtype and keep the reports."""
    reports = {}
    for dtype in ("float64", "float32", "bfloat16", "int8"):
        command = [sys.executable, ROOT / "cli.py", "parity", "--dtype", dtype, "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        worst = max(report["places"], key=lambda place: place["relative_l2"])
        reports[dtype] = {name: report[name] for name in ("prompt", "passed", "bound", "arrays")} | {"worst": worst}
    (ROOT / "reports" / "parity.json").write_text(json.dumps(reports, indent=2) + "\n")


def commit():
    """Return the commit that is measured; a copy without its history does not know."""
    asked = ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip() or "unknown"


def measure_speed(folder, device="cpu"):
    """Run ``cli.py bench`` once for each kind and keep the reports, with date and commit."""
    about = {"date": str(datetime.date.today()), "commit": commit()}
    for kind in BENCHED[device]:
        backend, dtype, *static = kind.split()
        command = [sys.executable, ROOT / "cli.py", "bench", "--checkpoint", folder, "--json", "--device", device]
        command += ["--backend", backend, "--dtype", dtype, "--batches", "1", "2", "4", "16", *static]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        path = ROOT / "reports" / f"bench_{device}_{backend}_{dtype}{'_static' if static else ''}.json"
        path.write_text(json.dumps(about | report | {"checkpoint": CHECKPOINT}, indent=2) + "\n")


def bounds_table():
    from npgemma.tools.compare import BOUNDS

    rows = ["| dtype | bound | largest of a whole answer | arrays | where |", "|---|---:|---:|---:|---|"]
    for dtype, report in json.loads((ROOT / "reports" / "parity.json").read_text()).items():
        worst = report["worst"]
        largest, where = worst["relative_l2"], worst["worst"]
        rows.append(f"| {dtype} | {BOUNDS[dtype]:g} | {largest:.1e} | {report['arrays']} | `{where}` |")
    return "\n".join(rows)


def first_output():
    import npgemma

    answer = npgemma.load().generate(npgemma.example_image())
    return f"```\n$ python cli.py\n{answer.text}\n```"


def gallery_table():
    from tiny.training import gallery

    return gallery.table(ROOT / "tiny")


BLOCKS = {
    "first output": first_output,
    "gallery": gallery_table,
    "path": path_table,
    "bounds": bounds_table,
    "speed": lambda: each_device(speed_table, "bench"),
    "against": lambda: each_device(against_table, "against_hugging_face"),
}


def regenerate(text):
    """Return the README with every generated block made anew."""
    for name, make in BLOCKS.items():
        pattern = rf"(<!-- generated: {name} -->).*?(\n<!-- end -->)"
        assert re.search(pattern, text, re.S), f"README.md has no block '{name}'"
        text = re.sub(pattern, lambda match, make=make: f"{match[1]}\n{make()}{match[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        measure_parity()
    if sys.argv[1:2] == ["bench"]:
        measure_speed(*sys.argv[2:])
    readme = ROOT / "README.md"
    readme.write_text(regenerate(readme.read_text()))
