"""From what every known mistake says of a port to a verdict."""

from collections.abc import Callable
from typing import Any

from npgemma.porting.bounds import NEAR_ONE, SAME, SURE, VISIBLE
from npgemma.porting.diagnosis.hypotheses import ask
from npgemma.porting.diagnosis.replays import Replays
from npgemma.porting.diagnosis.suspects import suspects
from npgemma.porting.mistakes import MISTAKES
from npgemma.porting.narrow import NARROW

# In a narrow dtype these are what a right program does as well.
RIGHT_IF_NARROW = (
    "embedding-scale-bfloat16", "cache-bfloat16", "patch-weights-bfloat16", "vision-positions-bfloat16",
    "norm-in-bfloat16",
)  # fmt: skip


def diagnose(replays: Replays, tell: Callable[[str], None] = lambda id: None) -> dict[str, Any]:
    """Say what is wrong with a port, and ``tell`` which known mistake is tried.

    The report has the ``verdict`` (``right``; ``rounding``, of a narrow port whose rounding may hide mistakes;
    ``mistake`` or ``undecided``); ``mistakes``, the surest first;
    ``unexplained``, the first wrong array that no mistake explains, or None; ``nearest``, the mistakes that explain
    some of these and are not named; how many arrays were ``compared`` and are ``wrong``; ``undecidable``, the mistakes
    that this trace cannot show, of those that were tried, with reasons; and ``in_float32``, the kinds of operations
    that a port of float64 calculates in float32, and that are judged by float32's limits.
    """
    wrong = replays.wrong(replays.right)
    asked = _asked(replays, wrong, tell)
    named, unexplained = _explaining(asked, wrong)
    ids = {hypothesis.id for hypothesis in named}
    named += [hypothesis for hypothesis in _below_rounding(replays, asked) if hypothesis.id not in ids]
    narrow = replays.port.dtype in NARROW
    return {
        "verdict": "mistake" if named else "undecided" if unexplained else "rounding" if narrow else "right",
        "mistakes": [hypothesis.as_json() for hypothesis in named],
        "unexplained": unexplained[0] if unexplained else None,
        "nearest": _nearest(asked, unexplained),
        "wrong": len(wrong),
        "compared": sum(place.error is not None for place in replays.right.values()),
        "undecidable": _undecidable(replays, asked, named),
        "in_float32": list(replays.in_float32),
    }


def _asked(replays, wrong, tell):
    """Ask the suspects, counting positions from 1 too where the port hides their origin and that explains more; of a
    port that is right, or has an array that no suspect explains, ask all known mistakes.
    """
    askable = list(_askable(replays))
    asked, unexplained = _of_suspects(replays, wrong, askable, tell)
    if unexplained and replays.conventions.hidden:
        replays.count_from(1)
        again, rest = _of_suspects(replays, wrong, askable, tell)
        if len(rest) < len(unexplained):
            asked, unexplained = again, rest
        else:
            replays.count_from(0)
    if unexplained or not wrong:
        _ask_all(replays, askable, asked, tell)
    return list(asked.values())


def _of_suspects(replays, wrong, askable, tell):
    """Ask the suspects of the first wrong array, then of the first that nothing explains yet; return the hypotheses
    and what stays unexplained.
    """
    asked, unexplained, first = {}, wrong, None
    while unexplained and unexplained[0] != first:
        first = unexplained[0]
        _ask_all(replays, suspects(replays, first, askable), asked, tell)
        unexplained = _explaining(list(asked.values()), wrong)[1]
    return asked, unexplained


def _ask_all(replays, injections, asked, tell):
    """Add the hypotheses of all injections that are not among those ``asked``."""
    for injection in injections:
        if injection not in asked:
            tell(injection[0])
            asked[injection] = ask(replays, injection)


def _askable(replays):
    """Yield the mistakes that this model can have and that arrays can show, in each of their variants."""
    for id, mistake in MISTAKES.items():
        if mistake.shows_in_arrays and mistake.possible_in(replays.model.config):
            yield from ((id, variant) for variant in range(len(mistake.variants)))


def _explaining(asked, wrong):
    """Choose the mistakes that explain wrong arrays, those that explain most first; return what stays unexplained."""
    fitting = [hypothesis for hypothesis in asked if hypothesis.places and not hypothesis.contradictions]
    fitting.sort(key=lambda hypothesis: (-len(hypothesis.places), hypothesis.explained_error or 0.0))
    named, unexplained = {}, list(wrong)
    for best in fitting:
        if best.id in named or not set(best.places) & set(unexplained):
            continue
        rivals = [other for other in fitting if other.id != best.id and set(other.places) == set(best.places)]
        # Mistakes that explain the same arrays almost or exactly equally well are not named.
        near = max(2 * (best.explained_error or 0.0), SAME)
        if any((rival.explained_error or 0.0) < near for rival in rivals):
            continue
        named[best.id] = best
        unexplained = [name for name in unexplained if name not in best.places]
    return list(named.values()), unexplained


def _nearest(asked, unexplained):
    """Return the three mistakes that explain most of what stays unexplained, and the first array that contradicts
    each; None where others explain as much, so that it is not named.
    """
    nearest = {}
    for each in sorted(asked, key=lambda each: len(each.places)):  # the better variant last
        if explains := len(set(each.places) & set(unexplained)):
            against = next(iter(each.contradictions), None)
            nearest[each.id] = {"name": each.id, "explains": explains, "contradicted_by": against}
    return sorted(nearest.values(), key=lambda each: -each["explains"])[:3]


def _below_rounding(replays, asked):
    """Return the mistakes that only their projections show, the surest variant of each."""
    narrow = replays.port.dtype in NARROW
    best = {}
    for hypothesis in sorted(asked, key=lambda hypothesis: -hypothesis.z):
        right_here = narrow and hypothesis.id in RIGHT_IF_NARROW
        stands = stands_out(hypothesis.c, hypothesis.z, hypothesis.visible)
        if stands and not hypothesis.places and not right_here:
            best.setdefault(hypothesis.id, hypothesis)
    return list(best.values())


def stands_out(c: float, z: float, visible: float) -> bool:
    """Say whether a projection is enough to name a mistake; c, z and visible are those of a
    `npgemma.porting.diagnosis.hypotheses.Hypothesis`. What the trace could not show is not named.
    """
    return visible >= VISIBLE and abs(c - 1) < NEAR_ONE and z > SURE


def _undecidable(replays, asked, named):
    """Return which mistakes this trace cannot show, and why."""
    undecidable, ids = [], {hypothesis.id for hypothesis in named}
    for id, mistake in MISTAKES.items():
        variants = [hypothesis for hypothesis in asked if hypothesis.id == id]
        visible = max((variant.visible for variant in variants), default=0.0)
        if id in ids or any(variant.places or variant.contradictions for variant in variants):
            continue
        if not mistake.shows_in_arrays:
            reason = f"it shows in {mistake.place}, and not in arrays"
        elif not variants:
            continue
        elif visible == 0:
            reason = mistake.unseen or "none of the arrays that were given depends on it"
        elif visible < VISIBLE:
            reason = f"its effect is hidden by {replays.port.dtype}'s rounding"
        else:
            continue
        undecidable.append({"name": id, "reason": reason})
    return undecidable
