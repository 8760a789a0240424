"""Reports on checkpoints and speed, and of parity, laid out for reading; ``--json`` prints the same reports whole."""

import re

from npgemma.files.foreign import shown


def parity_table(report):
    """Lay out a parity report for reading."""
    heads = f"{'arrays':>6} {'relative L2':>12} {'longer by':>15} {'largest':>9} {'% of bound':>10}"
    lines = [f"{'place':34} {heads}  worst array"]
    for row in report["places"]:
        # The place is in the row already, but for which step it was.
        worst = row["worst"].removeprefix(row["place"] + "/")
        lines.append(
            f"{row['place']:34} {row['arrays']:6} {row['relative_l2']:12.2e} {row['norm_ratio'] - 1:15.1e} "
            f"{row['largest']:9.1e} {row['percent_of_bound']:10.2f}  {worst}"
        )
    ours, theirs = report["token_ids"]["expected"], report["token_ids"]["found"]
    equal = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    for side, names in (("expected", report["missing"]), ("found", report["unexpected"])):
        if names:
            lines.append(f"only among those {side}: {len(names)} arrays, first {names[0]}")
    if report["first_past_bound"]:
        lines.append(f"first array past the bound: {report['first_past_bound']}")
    for row in report["own_errors"]:
        share = f"{row['own_error']:.1e}, {row['percent_of_limit']:.0f} % of its limit"
        lines.append(f"own error, {row['kind']:18} {row['arrays']:4} arrays: {share} in {row['worst']}")
    if report["past_limit"]:
        lines.append(f"past its limit: {len(report['past_limit'])} arrays, first {report['past_limit'][0]}")
    highest = max((row["percent_of_bound"] for row in report["places"]), default=0.0)
    lines.append(
        f"{report['arrays']} arrays, {report['dtype']}: {highest:.2f} % of the bound {report['bound']:g} used; "
        f"{equal} of {max(len(ours), len(theirs))} tokens equal; {'passed' if report['passed'] else 'FAILED'}"
    )
    return "\n".join(lines)


def summary_table(report):
    """Lay out on one screen what a checkpoint is, and what it needs."""
    facts, size = report["summary"], report["summary"]["resolution"]
    tokens, free = report["config"]["image_tokens"], facts["free"]
    ids = shown(", ".join(map(str, facts["end_tokens"])), 80)
    lines = [
        f"{'checkpoint':14} {report['checkpoint']}",
        f"{'family':14} {facts['family']}",
        f"{'size':14} {facts['size'] or 'none that was published'}: {report['parameters']:,} parameters, "
        f"{report['bytes'] / 1e6:,.1f} MB",
        f"{'resolution':14} {size} x {size} pixels, {tokens} image tokens",
        f"{'dtype':14} {facts['dtype']}",
        f"{'layout':14} {facts['layout']}",
        f"{'names':14} {facts['names']}",
        f"{'tokenizer':14} {facts['tokenizer']}",
        f"{'end tokens':14} {ids}",
        f"{'adapter':14} {facts['adapter'] or 'none'}",
        *(f"{'note':14} {note}" for note in facts["notes"]),
        "",
        "memory for the weights" + (f" ({free / 1e9:.1f} GB are free here)" if free is not None else ""),
    ]
    for dtype, needed in facts["memory"].items():
        fits = "" if free is None else "  fits" if needed <= free else "  does not fit"
        lines.append(f"  --dtype {dtype:9} {needed / 1e9:8.2f} GB{fits}")
    return "\n".join([*lines, "", "--tensors lists every tensor"])


def inspect_table(report):
    """Lay out a checkpoint's contents for reading, the same tensor of all layers in one line."""
    config = report["config"]
    lines = [report["checkpoint"], ""]
    for part in ("vision", "text"):
        lines.append(f"{part}: " + ", ".join(f"{name} {_in_words(value)}" for name, value in config[part].items()))
    names = ("image_tokens", "bos_token", "eos_tokens", "image_token")
    special = ", ".join(f"{name} {_in_words(config[name])}" for name in names)
    lines += [
        special,
        "",
        f"{'layers':>6}  {'ours':28} {'axes':5} {'stored as':8} {'dtype':5} {'shape':>16} {'megabytes':>9}  hub",
    ]
    rows = {}
    for tensor in report["tensors"]:
        rows.setdefault(re.sub(r"\.\d+\.", ".*.", tensor["name"]), []).append(tensor)
    for name, tensors in rows.items():
        first = tensors[0]
        shape = " x ".join(map(str, first["shape"]))
        megabytes = sum(tensor["bytes"] for tensor in tensors) / 1e6
        hub = re.sub(r"\.\d+\.", ".*.", first["stored_name"])
        dtypes = "/".join(sorted({tensor["dtype"] for tensor in tensors}))
        lines.append(
            f"{len(tensors):6}  {name:28} {first['axes']:5} {first['stored_axes']:9} {dtypes:5} {shape:>16} "
            f"{megabytes:9.2f}  {hub}"
        )
    lines += [
        "",
        f"{report['parameters']:,} parameters in {len(report['tensors'])} tensors, {report['bytes'] / 1e6:,.1f} MB",
    ]
    return "\n".join(lines)


def _in_words(value):
    """Write a number; of a tuple, its ids, or how often each word is in it."""
    if not isinstance(value, (list, tuple)):
        return f"{value:g}"
    if value and isinstance(value[0], str):
        return " and ".join(f"{value.count(word)} {word}" for word in dict.fromkeys(value))
    return " ".join(map(str, value))


def bench_table(report):
    """Lay out measured speeds for reading."""
    limits, machine, model = report["limits"], report["machine"], report["model"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{model['parameters']:,} parameters, {model['dtype']}, {report['backend']} on {report['device']}; "
        f"{machine['threads']} threads ({versions})",
        f"this machine reads {limits['bytes_per_second'] / 1e9:.1f} GB/s and multiplies matrices at "
        f"{limits['operations_per_second'] / 1e9:.0f} GFLOP/s{_kernel(report)}",
        f"{'stage':18} {'seconds':>9} {'spread':>7} {'limit':>9} {'of limit':>9} {'tokens/s':>9}",
    ]
    for name, stage in report["stages"].items():
        rate = f"{stage['tokens_per_second']:9.1f}" if "tokens_per_second" in stage else ""
        lines.append(
            f"{name:18} {stage['seconds']:9.4f} {stage['spread']:7.0%} {stage['limit']:9.4f} "
            f"{stage['percent']:8.0f}% {rate}"
        )
    memory = "" if report["peak_bytes"] is None else f"; peak memory {report['peak_bytes'] / 1e9:.2f} GB"
    lines.append(f"loaded in {report['load_seconds']:.2f} s{memory}")
    if machine["load_before"] and machine["load_before"] > 0.5:
        lines.append(
            f"note: other programs kept about {machine['load_before']:.1f} cores busy: the times may be theirs"
        )
    for name, value in machine["held_back_by"].items() if report["backend"] == "numpy" else ():
        lines.append(
            f"note: {name}={value} chooses NumPy's kernels or tiles, and may halve its speed: "
            f"unset it (env -u {name} python cli.py bench)"
        )
    return "\n".join(lines)


def _kernel(report):
    """Name the kernel that multiplies for NumPy; PyTorch has a library of its own."""
    known = report["backend"] == "numpy" and report["machine"]["kernel"]
    return f" with OpenBLAS's {known} kernel" if known else ""
