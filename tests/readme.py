"""Writes the generated parts of README.md: ``python tests/readme.py``; ``test_readme.py`` compares them.

``python tests/readme.py measure`` first measures the parity of the embedded checkpoint anew (``reports/parity.json``).
"""

import ast
import difflib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

# The reader's path: file, what it teaches, what to try.
PATH = [
    ("axes.py", "the alphabet: how to read `q_BTNH`", "cover the table and say what `weight_BKGTS` is"),
    ("ops.py", "the operations everything is made of", "take the `1 +` out of `rms_norm` and run the tests"),
    ("attention.py", "the one formula both towers use", "print `weight_BKGTS.sum(-1)`"),
    ("image.py", "a file becomes numbers from -1 to 1", "give it a transparent picture"),
    ("siglip.py", "a picture becomes one vector for each patch", "move the picture by one patch: what else changes?"),
    ("contrastive.py", "what SigLIP was trained with, beside CLIP's", "double a batch of strangers: which loss grows?"),
    ("projector.py", "the bridge between the towers", "compare its norm with `embed_tokens`'s"),
    ("tokenizer.py", "a prompt becomes ids", "print `prompt('caption en')`; put `<image>` into it"),
    ("rope.py", "positions as rotations", "add 100 in `mask.positions`: the answer stays. Why?"),
    ("mask.py", "who may look at whom", "make it causal: captions stay, but `detect red circle`?"),
    ("gemma.py", "the decoder", "give each query head its own keys: what else must change?"),
    ("paligemma.py", "the parts joined", "scale the picture tokens like text: which tests notice?"),
    ("cache.py", "what past tokens leave behind", "how many bytes are 1000 tokens of the 3B model?"),
    ("generate.py", "from scores to an answer", "set the temperature to 0.01, to 100"),
    ("masks.py", "sixteen codes become a mask", "change one code: which part of the mask changes?"),
    ("answer.py", "an answer becomes boxes and masks", "divide by 1024 instead: what moves?"),
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


def speed_table():
    report = json.loads((ROOT / "reports" / "full_size.json").read_text())
    limits, work = report["limits"], report["work"]
    read, product = limits["read_bytes_per_second"], limits["product_operations_per_second"]
    best = {
        "load": None,
        "vision": work["vision_operations"] / product,
        "prefill": work["prefill_operations"] / product,
        "seconds_per_token": work["step_bytes"] / read,
    }
    names = {"load": "load, bfloat16 to float32", "vision": "vision tower", "prefill": "prefill (first token)"}
    rows = ["| stage | NumPy | torch | limit of this machine |", "|---|---|---|---|"]
    for stage, limit in best.items():
        ours, theirs = (report["runs"][backend]["timings"][stage] for backend in ("numpy", "torch"))
        least = f"{limit:.2f} s" if limit else ""
        rows.append(f"| {names.get(stage, 'each further token')} | {ours:.2f} s | {theirs:.2f} s | {least} |")
    peaks = [report["runs"][backend]["peak_bytes"] / 1e9 for backend in ("numpy", "torch")]
    rows.append(f"| peak memory | {peaks[0]:.1f} GB | {peaks[1]:.1f} GB | |")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    rows += [
        "",
        f"Measured {report['date']} on {report['machine']['cores']} cores ({versions}); in the same run the machine "
        f"read {read / 1e9:.1f} GB/s and multiplied matrices at {product / 1e9:.0f} GFLOP/s (NumPy, float32).",
    ]
    return "\n".join(rows)


def measure_parity():
    """Run ``cli.py parity`` in every dtype and keep the reports."""
    reports = {}
    for dtype in ("float64", "float32", "bfloat16"):
        command = [sys.executable, ROOT / "cli.py", "parity", "--dtype", dtype, "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        worst = max(report["places"], key=lambda place: place["relative_l2"])
        reports[dtype] = {name: report[name] for name in ("prompt", "passed", "bound", "arrays")} | {"worst": worst}
    (ROOT / "reports" / "parity.json").write_text(json.dumps(reports, indent=2) + "\n")


def bounds_table():
    from npgemma.parity import BOUNDS

    rows = ["| dtype | bound | largest of a whole answer | arrays | where |", "|---|---:|---:|---:|---|"]
    for dtype, report in json.loads((ROOT / "reports" / "parity.json").read_text()).items():
        worst = report["worst"]
        largest, where = worst["relative_l2"], worst["worst"]
        rows.append(f"| {dtype} | {BOUNDS[dtype]:g} | {largest:.1e} | {report['arrays']} | `{where}` |")
    return "\n".join(rows)


def first_output():
    import npgemma

    answer = npgemma.load().generate(npgemma.example_picture())
    return f"```\n$ python cli.py\n{answer.text}\n```"


def gallery_table():
    from tiny import gallery

    return gallery.table(ROOT / "tiny")


BLOCKS = {
    "first output": first_output,
    "gallery": gallery_table,
    "path": path_table,
    "bounds": bounds_table,
    "speed": speed_table,
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
    readme = ROOT / "README.md"
    readme.write_text(regenerate(readme.read_text()))
