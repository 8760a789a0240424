"""From what every known mistake says of a port to a verdict."""

from typing import Any

from npgemma.porting.bounds import NEAR_ONE, SURE, VISIBLE
from npgemma.porting.diagnosis.hypotheses import ask
from npgemma.porting.diagnosis.replays import Replays
from npgemma.porting.mistakes import MISTAKES

# In a narrow dtype these are what a right program does as well.
RIGHT_IF_NARROW = (
    "embedding-scale-bfloat16", "cache-bfloat16", "patch-weights-bfloat16", "vision-positions-bfloat16",
    "norm-in-bfloat16",
)  # fmt: skip


def diagnose(replays: Replays) -> dict[str, Any]:
    """Say what is wrong with a port.

    The report has the ``verdict`` (``right``, ``mistake`` or ``undecided``); ``mistakes``, the surest first;
    ``unexplained``, the first wrong array that no mistake explains, or None; how many arrays were ``compared`` and are
    ``wrong``; ``undecidable``, the mistakes that this trace cannot show, with reasons; and ``in_float32``, the kinds of
    operations that a port of float64 calculates in float32, and that are judged by float32's limits.
    """
    wrong = replays.wrong(replays.right)
    asked = [ask(replays, injection) for injection in _askable(replays)]
    named, unexplained = _explaining(asked, wrong)
    ids = {hypothesis.id for hypothesis in named}
    named += [hypothesis for hypothesis in _below_rounding(replays, asked) if hypothesis.id not in ids]
    return {
        "verdict": "mistake" if named else "undecided" if unexplained else "right",
        "mistakes": [hypothesis.as_json() for hypothesis in named],
        "unexplained": unexplained[0] if unexplained else None,
        "wrong": len(wrong),
        "compared": sum(place.error is not None for place in replays.right.values()),
        "undecidable": _undecidable(replays, asked, named),
        "in_float32": list(replays.in_float32),
    }


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
        # Mistakes that explain the same arrays almost equally well are not named.
        if any((rival.explained_error or 0.0) < 2 * (best.explained_error or 0.0) for rival in rivals):
            continue
        named[best.id] = best
        unexplained = [name for name in unexplained if name not in best.places]
    return list(named.values()), unexplained


def _below_rounding(replays, asked):
    """Return the mistakes that only their projections show, the surest variant of each."""
    narrow = replays.port.dtype in ("bfloat16", "float16")
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
