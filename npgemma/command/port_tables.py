"""Reports on a port, of ``compare`` and ``diagnose``, laid out for reading."""

import collections

from npgemma.files.foreign import shown
from npgemma.porting.bounds import LOGITS_ROWS
from npgemma.porting.mistakes import MISTAKES

# Statements between a wrong array and its inputs that are printed.
MOST_STEPS = 12
# Letters of a name and of a path or a statement, whoever wrote them.
NAME, PATH = 80, 300


def compare_table(report):
    """Lay out the comparison of a port: another prompt first, then coverage, the verdict last."""
    counts = report["coverage"]
    lines = [
        *prompt_lines(report),
        f"coverage: {counts['compared']} arrays of {counts['kinds']} kinds compared; {counts['known_kinds']} more kinds"
        f" are other names of these; {counts['unseen_kinds']} kinds are not in {shown(report['port'], PATH)}",
        f"          {counts['unknown']} of its {counts['port_arrays']} arrays are unknown (--check-map lists them)",
        *_unfit(counts),
        *(f"logits: the port stores their {kind}, judged after it is undone" for kind in report["stored_as"]),
        *_tokens(report["tokens"]),
    ]
    lines += _own_errors(report)
    if report["largest"] and not report["first"]:
        largest = report["largest"]
        lines.append(f"closest to its budget: {largest['name']}, {largest['percent_of_budget']:.3g} % of it")
    if report["first"]:
        lines += ["", *_first(report["first"])]
    if report["others"]:
        why = "although their inputs are right" if report["judged_by"] == "end to end" else "by themselves"
        rest = f" and {len(report['others']) - 2} more" if len(report["others"]) > 2 else ""
        lines.append(f"  wrong too, {why}: {', '.join(report['others'][:2])}{rest}")
    if report["past_budget"]:
        lines.append(f"  {report['past_budget']} of {counts['compared']} arrays are past their budgets in all")
    lines += _graft(report["graft"]) if report["graft"] else []
    passed = "passed" if counts["logits"] else "passed, as far as was compared: no logits were"
    return "\n".join([*lines, "", f"{report['dtype']}: {passed if report['passed'] else 'FAILED'}"])


def _own_errors(report):
    """Lay out the worst own error of each kind of operation beside what is allowed."""
    if report["judged_by"] == "end to end":
        return ["judged end to end, since the checkpoint of the reference is not at hand or too large for float64:"
                " an error of one operation counts in all after it"]  # fmt: skip
    lines = [f"own error, from the port's own inputs     worst   allowed  {'% of allowed':>12}  of"]
    for row in report["own_errors"]:
        # Three digits: a machine that rounds differently shows the same.
        percent = float(f"{row['percent_of_limit']:.3g}")
        figures = f"{row['own_error']:9.1e} {row['allowed']:9.1e}  {percent:12.0f}"
        lines.append(f"  {row['kind']:18} {row['arrays']:4} arrays     {figures}  {row['worst']}")
    return lines


def _graft(graft):
    """Say whether a mistake was made before or after the arrays that were taken from the port."""
    names, bound = " and ".join(graft["names"]), f"{graft['bound']:g}"
    if not graft["behind"]:
        return ["", f"graft: the port shows nothing that depends on {names}"]
    if graft["first"]:
        return [
            "",
            f"graft: with the port's {names} in place of ours, {graft['past_bound']} of {graft['behind']} arrays after"
            f" that still differ, first {graft['first']} ({graft['first_error']:.2g}, bound {bound}): made there",
        ]
    agree = f"graft: with the port's {names} in place of ours, all {graft['behind']} arrays after that agree"
    agree += f" (at most {graft['largest']:.2g}, bound {bound})"
    if graft["inherited"]:
        return ["", f"{agree}: the mistake was made before, or in {graft['inherited'][0]} itself"]
    return ["", f"{agree}, and so does what was taken: no mistake passes through it"]


def prompt_lines(report):
    """Say first of all that the port was asked something else, if it was."""
    other = report.get("other_prompt")
    if not other:
        return []
    found, expected = other["found"], other["expected"]
    return [
        f"prompt: the port read {len(found)} tokens of text, this prompt has {len(expected)}: "
        f"{shown(str(found), PATH)}, here {shown(str(expected), PATH)};",
        "        pass --prompt with the port's question if it was another one; if not, its tokens are made otherwise",
    ]


def _unfit(counts):
    """Say what of the map led to nothing."""
    misfits, idle = counts["misfits"], counts["idle_rules"]
    return [f"          {misfits} do not fit, and {idle} rules of the map find nothing"] if misfits or idle else []


def _tokens(tokens):
    """Say whether the tokens are the same, and if not, what parted them."""
    parted, found = tokens["parted"], tokens["found"]
    if found is None:
        return ["tokens: the port gives none (they would be an array token_ids)"]
    if parted is None:
        return [f"tokens: {len(found)} compared, all equal"]
    return [
        f"tokens: token {parted['index']} is {parted['found']}, here {parted['expected']}: a {parted['verdict']}, for "
        f"the logits are {parted['margin']:.2g} apart and rounding can move them by {parted['allowed']:.2g}"
    ]


def _first(first):
    """Say what is wrong first, what it was made from, and what to look at."""
    shapes, operation = first["shapes"], first["operation"]
    lines = [f"first wrong operation: {first['name']}", f"  the port's {shown(first['port'], NAME)}"]
    if first["relative_l2"] is not None:
        lines.append(f"  relative L2 {first['relative_l2']:.2g}, budget {first['budget']:g}")
    if shapes["expected"] != shapes["found"]:
        lines.append(f"  shape {shapes['found']} in the port, {shapes['expected']} here")
    lines += [f"  {sentence}" for sentence in first["says"]]
    inputs = first["inputs"]
    if not inputs:
        lines.append("  the port shows none of its inputs")
    else:
        lines.append("  recalculated from the port's own:" if first["alone"] else "  its inputs are right:")
    lines += [f"    {name} ({error:.1e})" for name, error in inputs.items()]
    lines.append("  look at:")
    hidden = max(len(first["between"]) - MOST_STEPS, 0)
    if hidden:
        lines.append(f"    {hidden} statements before these, whose arrays the port does not show either")
    for step in [*first["between"][hidden:], operation]:
        weights = f" with {', '.join(step['weights'])}" if step["weights"] else ""
        told = shown(f"{step['file']}  {step['formula']}{weights}", PATH)
        lines.append(f"    {told}" if step["file"] else "    the image and the prompt that the model is given")
    return lines


def inputs_table(report):
    """Lay out how a port read the images and prompts of a set."""
    lines = [f"all wrong images: {cause}" for cause in report["causes"]]
    for row in report["inputs"]:
        outcome = "right" if row["right"] else "WRONG"
        lines.append(f"{shown(row['name'], NAME):28} {outcome}  {row['says']}".rstrip())
    right = sum(row["right"] for row in report["inputs"])
    lines.append(f"{right} of {len(report['inputs'])} inputs right: {'passed' if report['passed'] else 'FAILED'}")
    return "\n".join(lines)


def map_table(report):
    """Lay out what a name map finds, suggestions first, a kind of arrays in a line."""
    from npgemma.porting.coverage import port_kind
    from npgemma.porting.reference import kind
    from npgemma.porting.suggestions import as_toml

    counts, mapped = report["counts"], report["mapped"]
    ports = {kind(name): f"  <-  {shown(port_kind(port), NAME)}" for name, port in reversed(mapped.items())}
    lines = ["suggestions, to be put into the map:" if report["suggestions"] else "no suggestions"]
    lines += as_toml(report["suggestions"]).splitlines()
    for key, title, arrays, kinds, kind_of in (
        ("mapped", "mapped: our array, the port's", "arrays", "kinds", kind),
        ("known", "known: another name of a mapped array", "known", "known_kinds", kind),
        ("unseen", "not seen: ours that the port does not write", "unseen", "unseen_kinds", kind),
        ("unknown", "unknown: the port's that no rule knows", "unknown", "unknown_kinds", port_kind),
    ):
        lines.append(f"{title}: {counts[arrays]} arrays of {counts[kinds]} kinds")
        rows = collections.Counter(map(kind_of, report[key])).items()
        beside = ports if key == "mapped" else {}
        lines += [f"  {count:4} {shown(name, NAME)}{beside.get(name, '')}" for name, count in rows]
    lines += [f"does not fit: {name}: {shown(why, PATH)}" for name, why in report["misfits"].items()]
    lines += [f"finds nothing: {shown(why, PATH)}" for why in report["idle"]]
    return "\n".join(lines)


def mistakes_table(report):
    """Lay out the library of mistakes for reading."""
    return "\n".join(line for row in report for line in _mistake(row["id"]))


def _mistake(id):
    """Say what a known mistake is, who made it, and where it shows first."""
    mistake = MISTAKES[id]
    return [id, f"    {mistake.says}", f"    made by: {mistake.made_by}", f"    shows in: {mistake.place}"]


def diagnosis_table(report):
    """Lay out a diagnosis from a port's arrays for reading."""
    judged = f"{report['compared']} arrays compared, judged as {report['dtype']}"
    lines = [*prompt_lines(report), f"{judged}: {report['wrong']} of them are past what rounding explains"]
    for named in report["mistakes"]:
        name, own = named["name"], named["own_error"]
        lines += ["", f"{name}: {MISTAKES[name].says}", f"  first in {named['place']}"]
        if own is None:
            lines.append(f"  smaller than rounding, which points its way: c = {named['c']:.2f}, z = {named['z']:.0f}")
        else:
            explained = named["explained_error"]
            lines.append(f"  own error {own:.1e}; {explained:.1e} if the reference makes the mistake too")
    if report["in_float32"]:
        lines += ["", f"calculated in float32, and judged by its limits: {', '.join(report['in_float32'])}"]
    if report["unexplained"]:
        lines += ["", f"no known mistake explains {report['unexplained']}: look at what makes it"]
        for near in report["nearest"]:
            why = f"{near['contradicted_by']} is not as it would be" if near["contradicted_by"] else "others do as well"
            lines.append(f"  {near['name']} explains {near['explains']} arrays, but {why}")
    if report["undecidable"]:
        lines += ["", "not decidable here:"]
        lines += [f"  {row['name']}: {row['reason']}" for row in report["undecidable"]]
    rounding = ": this does not prove it right, for rounding may hide what is not decidable; run it in float32"
    return "\n".join([*lines, "", f"verdict: {report['verdict']}" + rounding * (report["verdict"] == "rounding")])


def logits_table(report):
    """Lay out a diagnosis from a port's logits for reading."""
    lines = [
        f"{report['verdict']}: the port's logits{_first_rows(report)} are {report['own_error']:.1e} away from the "
        f"right ones; rounding in {report['dtype']} makes up to {report['rounding']:.1e}"
    ]
    lines += [f"    {report['says']}"] * bool(report["says"])
    for named in report["mistakes"]:
        lines += _mistake(named["name"])
        if named["c"] is not None:
            lines += [f"    with it, {named['explained_error']:.1e} are left; c = {named['c']:.2f}"]
    lines += [f"    the file has their {report['stored_as']}, and was judged as logits"] * bool(report["stored_as"])
    lines += [f"    {each['name']} explains {each['explains']:.0%} of that" for each in report["nearest"]]
    lines += ["", "these logits cannot show:"]
    return "\n".join([*lines, *(f"    {row['name']}: {row['reason']}" for row in report["undecidable"])])


def _first_rows(report):
    """Say on which rows mistakes were tried, if the answer has more."""
    return f" of the first {LOGITS_ROWS} tokens" * (len(report["row_errors"]) > LOGITS_ROWS)
