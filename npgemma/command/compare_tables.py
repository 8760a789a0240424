"""The reports of ``compare`` laid out for reading."""

import re


def compare_table(report):
    """Lay out the comparison of a port: coverage first, the verdict last."""
    counts = report["coverage"]
    lines = [
        f"coverage: {counts['compared']} arrays of {counts['kinds']} kinds compared; {counts['known_kinds']} more kinds"
        f" are other names of these; {counts['unseen_kinds']} kinds are not in {report['port']}",
        f"          {counts['unknown']} of its {counts['port_arrays']} arrays are unknown (--check-map lists them)",
        *_tokens(report["tokens"]),
    ]
    if report["largest"] and not report["first"]:
        largest = report["largest"]
        lines.append(f"closest to its budget: {largest['name']}, {largest['percent_of_budget']:.3g} % of it")
    if report["first"]:
        lines += ["", *_first(report["first"])]
    if report["others"]:
        rest = f" and {len(report['others']) - 2} more" if len(report["others"]) > 2 else ""
        lines.append(f"  wrong too, although their inputs are right: {', '.join(report['others'][:2])}{rest}")
    if report["past_budget"]:
        lines.append(f"  {report['past_budget']} of {counts['compared']} arrays are past their budgets in all")
    return "\n".join([*lines, "", f"{report['dtype']}: {'passed' if report['passed'] else 'FAILED'}"])


def _tokens(tokens):
    """Say whether the tokens are the same, and if not, what parted them."""
    parted, found = tokens["parted"], tokens["found"]
    if found is None:
        return ["tokens: the port tells none (an array token_ids would)"]
    if parted is None:
        return [f"tokens: {len(found)} compared, all equal"]
    return [
        f"tokens: token {parted['index']} is {parted['found']}, here {parted['expected']}: a {parted['verdict']}, for "
        f"the logits are {parted['margin']:.2g} apart and rounding can move them by {parted['allowed']:.2g}"
    ]


def _first(first):
    """Say what is wrong first, what it was made from, and what to look at."""
    shapes, operation = first["shapes"], first["operation"]
    lines = [f"first wrong operation: {first['name']}", f"  the port's {first['port']}"]
    if first["relative_l2"] is not None:
        lines.append(f"  relative L2 {first['relative_l2']:.2g}, budget {first['budget']:g}")
    if shapes["expected"] != shapes["found"]:
        lines.append(f"  shape {shapes['found']} in the port, {shapes['expected']} here")
    lines += [f"  {sentence}" for sentence in first["says"]]
    inputs = first["inputs"]
    lines.append("  its inputs are right:" if inputs else "  the port shows none of its inputs")
    lines += [f"    {name} ({error:.1e})" for name, error in inputs.items()]
    lines.append("  look at:")
    for step in [*first["between"], operation]:
        weights = f" with {', '.join(step['weights'])}" if step["weights"] else ""
        lines.append(f"    {step['file']}  {step['formula']}{weights}" if step["file"] else "    what goes in")
    return lines


def inputs_table(report):
    """Lay out how a port read the images and prompts of a set."""
    lines = []
    for row in report["inputs"]:
        outcome = "right" if row["right"] else "WRONG"
        lines.append(f"{row['name']:28} {outcome}  {row['says']}".rstrip())
    right = sum(row["right"] for row in report["inputs"])
    lines.append(f"{right} of {len(report['inputs'])} inputs right: {'passed' if report['passed'] else 'FAILED'}")
    return "\n".join(lines)


def map_table(report):
    """Lay out what a name map finds, a kind of arrays in a line."""
    lines = []
    titles = {
        "mapped": "mapped: our array, the port's",
        "known": "known: another name of a mapped array",
        "unseen": "not seen: ours that the port does not write",
        "unknown": "unknown: the port's that no rule knows",
    }
    for key, title in titles.items():
        kinds = _kinds(report[key])
        lines.append(f"{title}: {len(report[key])} arrays of {len(kinds)} kinds")
        lines += [f"  {count:4} {name}" for name, count in kinds.items()]
    lines += [f"does not fit: {name}: {why}" for name, why in report["misfits"].items()]
    lines.append("suggestions, to be put into the map:" if report["suggestions"] else "no suggestions")
    for each in report["suggestions"]:
        lines.append(f'  [["{each["port"]}"]]  # by {each["by"]}')
        lines.append(f'  ours = "{each["ours"]}"\n  axes = "{each["axes"]}"')
    return "\n".join(lines)


def _kinds(names):
    """Count names that differ in the numbers of blocks and steps only."""
    pairs = names.items() if isinstance(names, dict) else ((name, "") for name in names)
    counts = {}
    for name, port in pairs:
        shown = re.sub(r"\b(block|step|layers|layer|blk)\.\d+", r"\1.*", f"{name}  <-  {port}" if port else name)
        counts[shown] = counts.get(shown, 0) + 1
    return counts
