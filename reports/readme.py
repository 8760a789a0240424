"""Writes what is generated in README.md and docs/: ``python reports/readme.py``; tests compare it.

``python reports/readme.py measure`` first measures the parity of the embedded checkpoint (``reports/parity.json``);
``python reports/readme.py bench DIR [cpu|cuda]`` the speed of a checkpoint (``reports/bench_*.json``), which needs a
quiet machine.
"""

import ast
import contextlib
import difflib
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from exercises import DOCUMENT, EXERCISES, Kept
from one_answer import walk as one_answer

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

# What is measured for the table of speeds, of a folder made by ``python -m conversion synthesize``.
BENCHED = {
    "cpu": ["numpy float32", "numpy bfloat16", "numpy int8", "torch float32", "torch bfloat16"],
    "cuda": ["torch float32", "torch bfloat16", "torch bfloat16 --static"],
}
CHECKPOINT = "paligemma-3b-224, random weights, bfloat16 file"

# The reader's path: file, and what it teaches; exercises.toml has what to try.
PATH = [
    ("axes.py", "the alphabet: how to read `q_BTNH`"),
    ("config.py", "the sizes, those of the published models too"),
    ("ops.py", "the operations everything is made of"),
    ("attention.py", "the one formula both towers use"),
    ("image.py", "a file becomes numbers from -1 to 1"),
    ("siglip.py", "an image becomes one vector for each patch"),
    ("projector.py", "the bridge between the towers"),
    ("tokenizer.py", "a prompt becomes ids"),
    ("rope.py", "positions as rotations"),
    ("mask.py", "who may look at whom"),
    ("gemma.py", "the decoder"),
    ("paligemma.py", "the parts joined"),
    ("cache.py", "what past tokens leave behind"),
    ("generate.py", "from logits to an answer"),
    ("contrastive.py", "what the models were trained with"),
    ("gemma2.py", "PaliGemma 2's decoder: four differences"),
    ("segmentation.py", "sixteen codes become a mask"),
    ("answer.py", "an answer becomes boxes and masks"),
    ("machinery/sampling.py", "machinery: the settings of an answer"),
    ("machinery/backend.py", "machinery: what runs a model, NumPy or PyTorch"),
    ("machinery/model.py", "machinery: everything together"),
    ("params.py", "machinery: the weights, declared once"),
]


def code_lines(path):
    """Return the lines that are neither blank, comment nor docstring."""
    text = path.read_text()
    hidden = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            hidden |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return [line for i, line in lines if line.strip() and not line.strip().startswith("#") and i not in hidden]


def changed_lines(module):
    """Return the lines of code that the twin has otherwise than the reference."""
    files = ROOT / "npgemma" / module, ROOT / "torch_ref" / pathlib.Path(module).name
    ours, theirs = map(code_lines, files)
    return [line[1:] for line in difflib.unified_diff(ours, theirs, n=0) if line[0] == "+" and line[:3] != "+++"]


def anchor_of(name):
    """Return the anchor of a file's heading in ``docs/exercises.md``."""
    return name.replace(".", "").replace("/", "")


def path_table():
    rows = ["| file | lines (of code) | code lines changed in the twin | teaches | try |", "|---|---:|---:|---|---|"]
    attempts = {exercise["file"]: exercise["try"] for exercise in EXERCISES}
    for name, teaches in PATH:
        path = ROOT / "npgemma" / name
        lines = f"{len(path.read_text().splitlines())} ({len(code_lines(path))})"
        differs = len(changed_lines(name)) if (ROOT / "torch_ref" / path.name).exists() else "shared"
        attempt = f"[{attempts[name]}]({DOCUMENT}#{anchor_of(name)})"
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
    from npgemma.benchmarks.runs import stamp

    for kind in BENCHED[device]:
        backend, dtype, *static = kind.split()
        command = [sys.executable, ROOT / "cli.py", "bench", "--checkpoint", folder, "--json", "--device", device]
        command += ["--backend", backend, "--dtype", dtype, "--batches", "1", "2", "4", "16", *static]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        path = ROOT / "reports" / f"bench_{device}_{backend}_{dtype}{'_static' if static else ''}.json"
        path.write_text(json.dumps(stamp() | report | {"checkpoint": CHECKPOINT}, indent=2) + "\n")


def bounds_table():
    from npgemma.porting.bounds import BOUNDS

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


# What a reader can explain after the path: concept, file, and the function or class whose docstring says it ("" for the
# file's own).
CONCEPTS = [
    ("what attention is for; query, key and value; why several heads", "attention.py", ""),
    ("why scores are divided by sqrt(H); attention of two tokens", "attention.py", "attend"),
    ("why there are fewer key/value heads, and what the cache saves and costs", "cache.py", ""),
    ("the state of a cache through prefill and two steps", "cache.py", "KVCache"),
    ("what the residual stream is, and why layers add to it", "siglip.py", ""),
    ("why the norms stand before attention and MLP", "siglip.py", "block"),
    ("why normalise; LayerNorm, and why it is not batch normalisation", "ops.py", "layer_norm"),
    ("RMSNorm, and why Gemma stores the gain minus 1", "ops.py", "rms_norm"),
    ("why rotation gives relative positions", "rope.py", ""),
    ("why pairs rotate at different speeds, and why the base", "rope.py", "angles"),
    ("equal offsets, equal scores", "rope.py", "rotate"),
    ("what an MLP adds to attention; what a gate does", "gemma.py", "geglu"),
    ("why GELU, and which", "ops.py", "gelu"),
    ("what an embedding table is, why it is scaled, why it is the output head as well", "gemma.py", "embed_tokens"),
    ("what a logit is", "gemma.py", "unembed"),
    ("what softmax makes of logits, at three temperatures", "ops.py", "softmax"),
    ("top-k and top-p on four probabilities; how a token is drawn", "generate.py", "sample"),
    ("why the prefix is bidirectional and the answer causal", "mask.py", ""),
    ("the mask, drawn", "mask.py", "prefix_lm"),
    ("what training predicts: the answer's tokens only", "contrastive.py", "next_token_loss"),
    ("what SigLIP was trained for; its pooled vector; why there is no class token", "siglip.py", ""),
    ("SigLIP's loss", "contrastive.py", "sigmoid_loss"),
    ("what a patch embedding is", "siglip.py", "embed_patches"),
    ("what a subword is; that <loc> and <seg> are ordinary rows", "tokenizer.py", ""),
    ("how four locations become a box, y before x", "answer.py", "find_objects"),
    ("how sixteen codes become a mask", "segmentation.py", ""),
]


def concepts_table():
    """Return where each concept is explained, and whether numbers stand beside it."""
    rows = ["| concept | where | exercise | example |", "|---|---|---|---|"]
    for concept, name, where in CONCEPTS:
        tree = ast.parse((ROOT / "npgemma" / name).read_text())
        found = next(node for node in ast.walk(tree) if not where or getattr(node, "name", None) == where)
        line, text = getattr(found, "lineno", 1), ast.get_docstring(found)
        code = f" `{where}`" if where else ""
        example = "yes" if ">>>" in text else "drawn" if "queries" in text and "keys" in text and where else ""
        try_it = f"[{name}](exercises.md#{anchor_of(name)})"
        rows.append(f"| {concept} | [{name}:{line}](../npgemma/{name}#L{line}){code} | {try_it} | {example} |")
    return "\n".join(rows)


def shapes_table():
    """Return the shape of every stage of the embedded checkpoint and of the 3B model."""
    import npgemma
    from npgemma.config import PUBLISHED

    configs = [npgemma.load().config, PUBLISHED["paligemma-3b-224"]]
    rows = ["| stage | axes | embedded checkpoint | PaliGemma 3B, 224 pixels |", "|---|---|---:|---:|"]
    for stage, letters, shape in STAGES:
        shapes = (" x ".join(map(str, shape(config, config.vision, config.text))) for config in configs)
        rows.append(f"| {stage} | {letters} | {' | '.join(shapes)} |")
    return "\n".join(rows)


# The walk through the model: stage, axes, and the shape (n text tokens: `<bos>`, prompt, newline, answer so far).
STAGES = [
    ("pixels, from -1 to 1", "`YXC`", lambda c, v, t: (v.image_size, v.image_size, 3)),
    ("patches, in reading order", "`TCyx`", lambda c, v, t: (c.image_tokens, 3, v.patch_size, v.patch_size)),
    ("patch embedding, and SigLIP's residual stream", "`TD`", lambda c, v, t: (c.image_tokens, v.width)),
    ("queries, keys and values in SigLIP (K = N)", "`TNH`", lambda c, v, t: (c.image_tokens, v.heads, v.head_width)),
    ("hidden channels of SigLIP's MLP", "`TF`", lambda c, v, t: (c.image_tokens, v.mlp_width)),
    ("image tokens, after the projector", "`PD`", lambda c, v, t: (c.image_tokens, t.width)),
    ("text tokens, from the embedding table", "`TD`", lambda c, v, t: ("n", t.width)),
    ("Gemma's residual stream: image, then text", "`SD`", lambda c, v, t: (f"({c.image_tokens} + n)", t.width)),
    ("queries in Gemma", "`TNH`", lambda c, v, t: (f"({c.image_tokens} + n)", t.query_heads, t.head_width)),
    ("keys and values in Gemma", "`SKH`", lambda c, v, t: (f"({c.image_tokens} + n)", t.key_value_heads, t.head_width)),
    ("hidden channels of Gemma's MLP", "`TF`", lambda c, v, t: (f"({c.image_tokens} + n)", t.mlp_width)),
    (
        "attention weights in Gemma",
        "`KGTS`",
        lambda c, v, t: (
            t.key_value_heads,
            t.query_heads // t.key_value_heads,
            f"({c.image_tokens} + n)",
            f"({c.image_tokens} + n)",
        ),
    ),
    ("logits of the next token", "`V`", lambda c, v, t: (t.vocabulary,)),
    ("a later step: one token, beside S keys and values of the cache", "`TD`", lambda c, v, t: (1, t.width)),
]


def supported_table():
    """Return what is read and what is refused by name, from the tables that the readers themselves use."""
    from conversion import hub_config, kinds, lora, preprocessing, summary
    from conversion.write import FILE_DTYPES
    from npgemma.config import PUBLISHED
    from npgemma.files import tokenizer_json

    families = ", ".join(summary.NAMES[name] for name in hub_config.FAMILIES)
    sizes = ", ".join(f"`{name}`" for name in PUBLISHED)
    others = ", ".join(dict.fromkeys(kinds.FAMILIES.values()))
    rows = [
        ("model", families, others),
        ("published sizes", f"{sizes}; any other size by its config.json", ""),
        ("weights", f"safetensors, in one file or shards; big_vision's npz: {', '.join(FILE_DTYPES)}",
         f"quantised weights, MLX, Git LFS pointers, {', '.join(f'`{end}`' for end in kinds.OTHER_FILES)}"),
        ("names", "; ".join(said for _, said in summary.GENERATIONS), "unmerged and prefixed state dicts"),
        ("tokenizer", f"tokenizer.model; tokenizer.json of type {' or '.join(tokenizer_json.MODELS)}; added tokens",
         "other models, normalizers, pre-tokenizers and decoders"),
        ("adapter", "LoRA, also rank-stabilised, with patterns and saved modules",
         ", ".join([*lora.OTHER_KINDS.values(), *lora.CHANGED_BASE])),
        ("preprocessing", f"any filter, mean, deviation and factor; `--resize {'` or `'.join(preprocessing.FILTERS)}`",
         "crops, padding, and any other size than config.json's"),
        ("place", "a folder, an npz file, or a hub id that the cache holds", ""),
    ]  # fmt: skip
    lines = ["| | read | refused by name |", "|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def walk():
    """Return the commands of docs/porting.md's first part, which lead to a named mistake."""
    part = (ROOT / "docs/porting.md").read_text().partition("## Ten minutes")[2].partition("\n## ")[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", part, re.S) for line in block.splitlines()]
    return [line.partition("  #")[0] for line in lines]


def walk_output():
    """Return what ``compare`` says in docs/porting.md, without the numbers that another machine rounds differently."""
    with tempfile.TemporaryDirectory() as folder:
        for line in walk()[:2]:
            said = command(line, folder)
    kept = [line for line in said.splitlines() if "past their budgets" not in line]
    text = re.sub(r" \(\d\.\d+e[-+]\d+\)$", "", "\n".join(kept), flags=re.M)
    rounding = r"(arrays) +\S+( +\S+) +\d{1,2}  \S+$"  # below the limit: of another array on another machine
    return "```\n" + re.sub(rounding, r"\1           ...\2           ...", text, flags=re.M) + "\n```"


def command(line, folder):
    """Run a line of a document, ``python cli.py ...``, in a folder; return what it prints."""
    from npgemma.command import main

    with contextlib.chdir(folder), contextlib.redirect_stdout(Kept()) as out, contextlib.redirect_stderr(Kept()):
        main(shlex.split(line)[2:])
    return out.getvalue()


def budgets_table():
    """Return the own errors of right programs beside the limits."""
    import budgets

    return budgets.table()


def diagnosis_table():
    """Count the outcomes of ``reports/diagnosis.py``."""
    report = json.loads((ROOT / "reports" / "diagnosis_hugging_face.json").read_text())
    outcomes = report["outcomes"]
    rows = [
        "| checkpoint | port's dtype | from | planted | cases | named | named in part | right | undecided | wrongly |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    counted = {}
    for each in outcomes:
        key = each["checkpoint"], each["dtype"], each["witness"], each["kind"]
        counted.setdefault(key, []).append(each)
    for key, found in counted.items():
        said = [_said(each) for each in found]
        counts = [said.count(word) for word in ("named", "named in part", "right", "undecided", "wrongly named")]
        rows.append(f"| {' | '.join([*key, str(len(found)), *map(str, counts)])} |")
    wrong = [
        f"`{' '.join(each['planted']) or 'nothing'}` as `{' '.join(each['named'])}`"
        for each in filter(wrongly_named, outcomes)
    ]
    run = f"Of {report['cases']} cases {len(outcomes)} were run"
    return "\n".join([*rows, "", f"{run}. Wrongly named: {', '.join(wrong) or 'none'}."])


def _said(outcome):
    """Say in a word what was made of a port."""
    if wrongly_named(outcome):
        return "wrongly named"
    if not outcome["named"]:
        return outcome["verdict"]
    return "named" if set(outcome["named"]) == set(outcome["planted"]) else "named in part"


def wrongly_named(outcome):
    """Say whether a port's diagnosis has a name that was not planted."""
    return not set(outcome["named"]) <= set(outcome["planted"])


# Every generated block, by document.
BLOCKS = {
    "README.md": {
        "first output": first_output,
        "gallery": gallery_table,
        "path": path_table,
    },
    "docs/overview.md": {"one answer": one_answer, "shapes": shapes_table},
    "docs/concepts.md": {"concepts": concepts_table},
    "docs/porting.md": {"walk": walk_output, "bounds": bounds_table},
    "docs/metrics.md": {"budgets": budgets_table, "diagnosis": diagnosis_table},
    "docs/supported.md": {"supported": supported_table},
    "docs/speed.md": {
        "speed": lambda: each_device(speed_table, "bench"),
        "against": against_tables,
        "full size": full_size_tables,
    },
}


def regenerate(document):
    """Return a document with every generated block made anew."""
    text = (ROOT / document).read_text()
    for name, make in BLOCKS[document].items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        assert re.search(pattern, text, re.S), f"{document} has no block '{name}'"
        text = re.sub(pattern, lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        measure_parity()
    if sys.argv[1:2] == ["bench"]:
        measure_speed(*sys.argv[2:])
    for document in BLOCKS:
        (ROOT / document).write_text(regenerate(document))
    import exercises
    import figures

    figures.write_all()
    exercises.write()
