"""From what every known mistake says of a port to a verdict."""

from npgemma.config import Gemma2Config
from npgemma.porting.bounds import NEAR_ONE, SURE, VISIBLE
from npgemma.porting.diagnosis.hypotheses import ask
from npgemma.porting.mistakes import MISTAKES

# In a narrow dtype these are what a right program does as well.
RIGHT_IF_NARROW = ("embedding-scale-bfloat16", "cache-bfloat16", "patch-weights-bfloat16", "vision-positions-bfloat16")


def diagnose(replays):
    """Say what is wrong with a port.

    Parameters
    ----------
    replays : Replays

    Returns
    -------
    dict
        ``verdict`` (``right``, ``mistake`` or ``undecided``), ``mistakes`` (surest first), ``unexplained`` (the first
        array that is wrong and that no mistake explains, or None), ``wrong`` (how many arrays are), ``compared``, and
        ``undecidable`` (mistakes that this trace cannot show, with reasons), and ``in_float32`` (the kinds of
        operations that a port of float64 calculates in float32, and that are judged by float32's limits).
    """
    wrong = replays.wrong(replays.right)
    asked = [ask(replays, injection) for injection in _askable(replays)]
    named, rest = _explaining(replays, asked, wrong)
    named += [each for each in _below_rounding(replays, asked) if each.id not in {other.id for other in named}]
    compared = sum(place.error is not None for place in replays.right.values())
    return {
        "verdict": "mistake" if named else "undecided" if rest else "right",
        "mistakes": [each.as_json() for each in named],
        "unexplained": rest[0] if rest else None,
        "wrong": len(wrong),
        "compared": compared,
        "undecidable": _undecidable(replays, asked, named),
        "in_float32": list(replays.in_float32),
    }


def _askable(replays):
    """Yield the mistakes that this model can have and that arrays can show, in each of their variants."""
    gemma2 = isinstance(replays.model.config.text, Gemma2Config)
    for id, mistake in MISTAKES.items():
        if _shows_in_arrays(mistake) and (gemma2 or not mistake.only_gemma2):
            yield from ((id, variant) for variant in range(len(mistake.variants)))


def _shows_in_arrays(mistake):
    return not any(name.startswith(("answer.", "model.")) for changes in mistake.variants for name in changes)


def _explaining(replays, asked, wrong):
    """Choose the mistakes that explain wrong arrays, those that explain most first; return what stays unexplained."""
    fitting = [each for each in asked if each.places and not each.contradictions]
    fitting.sort(key=lambda each: (-len(each.places), each.explained_error or 0.0))
    named, rest = [], list(wrong)
    for each in fitting:
        new = [name for name in each.places if name in rest]
        others = [other for other in fitting if other.id != each.id and set(other.places) == set(each.places)]
        if not new or each.id in {other.id for other in named}:
            continue
        # Two mistakes that explain the same arrays alike cannot be told apart here.
        if any((other.explained_error or 0.0) < 2 * (each.explained_error or 0.0) for other in others):
            continue
        named.append(each)
        rest = [name for name in rest if name not in each.places]
    return named, rest


def _below_rounding(replays, asked):
    """Return the mistakes that only their projections show."""
    narrow = replays.port.dtype in ("bfloat16", "float16")
    sure = [
        each
        for each in asked
        if not each.places and stands_out(each.c, each.z, each.visible) and not (narrow and each.id in RIGHT_IF_NARROW)
    ]
    best = {}
    for each in sorted(sure, key=lambda each: -each.z):
        best.setdefault(each.id, each)
    return list(best.values())


def stands_out(c, z, visible):
    """Say whether a projection is enough to name a mistake; what a trace could not show is not named by it.

    Parameters
    ----------
    c, z, visible : float
        As in `npgemma.porting.diagnosis.hypotheses.Hypothesis`.

    Returns
    -------
    bool
    """
    return visible >= VISIBLE and abs(c - 1) < NEAR_ONE and z > SURE


def _undecidable(replays, asked, named):
    """Return which mistakes this trace cannot show, and why."""
    found, known = [], {each.id for each in named}
    for id, mistake in MISTAKES.items():
        variants = [each for each in asked if each.id == id]
        visible = max((each.visible for each in variants), default=0.0)
        if id in known or any(each.places or each.contradictions for each in variants):
            continue
        if not _shows_in_arrays(mistake):
            reason = f"it shows in {mistake.place}, and not in arrays"
        elif not variants:
            continue
        elif visible == 0:
            reason = mistake.unseen or "none of the arrays that were given depends on it"
        elif visible < VISIBLE:
            reason = f"its effect is hidden by {replays.port.dtype}'s rounding"
        else:
            continue
        found.append({"name": id, "reason": reason})
    return found
