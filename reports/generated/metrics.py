"""The tables of docs/metrics.md: the own errors of right programs, and the outcomes of diagnoses."""

from generated.sources import report
from npgemma.porting.bounds import LARGEST_OWN_ERROR, MARGIN

OUTCOMES = ("named", "named in part", "right", "rounding", "undecided", "wrongly named")


def budgets_table():
    """Return the own errors of right programs beside the limits."""
    measured, kinds = report("budgets")["measured"], LARGEST_OWN_ERROR["float32"]
    lines = [f"| own error of a right program, and limit | {' | '.join(measured)} |", "|---|" + "---:|" * len(measured)]
    for kind in kinds:
        cells = []
        for dtype, programs in measured.items():
            largest = max(program.get(kind, 0.0) for program in programs.values())
            shown = f"{largest:.1e}" if largest else "not seen"
            cells.append(f"{shown}, {MARGIN * LARGEST_OWN_ERROR[dtype][kind]:.1e}")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", full_width()])


def full_width():
    """Say how much of the limits right programs use on blocks of a published model's width."""
    full = report("budgets_full_width")
    used = {
        dtype: max(
            100 * error / (MARGIN * LARGEST_OWN_ERROR[dtype][kind])
            for program in programs.values()
            for kind, error in program.items()
            if kind in LARGEST_OWN_ERROR[dtype]
        )
        for dtype, programs in full["measured"].items()
    }
    shares = " and ".join(f"{share:.0f} % in {dtype}" for dtype, share in used.items())
    return (
        f"On {full['layers']} blocks of each tower of paligemma-3b-224, random weights, NumPy and the twin use at "
        f"most {shares} of these limits."
    )


def diagnosis_table():
    """Count the outcomes of ``reports/diagnosis.py``."""
    kept = report("diagnosis_hugging_face")
    outcomes = kept["outcomes"]
    rows = [
        f"| checkpoint | port's dtype | from | planted | cases | {' | '.join(OUTCOMES)} |",
        "|---|---|---|---|" + "---:|" * (1 + len(OUTCOMES)),
    ]
    counted = {}
    for each in outcomes:
        key = each["checkpoint"], each["dtype"], each["witness"], each["kind"]
        counted.setdefault(key, []).append(each)
    for key, found in counted.items():
        said = [_said(each) for each in found]
        counts = [said.count(word) for word in OUTCOMES]
        rows.append(f"| {' | '.join([*key, str(len(found)), *map(str, counts)])} |")
    wrong = [
        f"`{' '.join(each['planted']) or 'nothing'}` as `{' '.join(each['named'])}`"
        for each in filter(wrongly_named, outcomes)
    ]
    run = f"Of {kept['cases']} cases {len(outcomes)} were run"
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
