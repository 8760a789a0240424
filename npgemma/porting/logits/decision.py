"""From the distances of a port's logits to a verdict: a name only where everything else is twice as far."""

from typing import Any

from npgemma.porting.bounds import LOGITS_LEAST, LOGITS_MARGIN, LOGITS_ROUNDING
from npgemma.porting.logits.answer_file import Answer
from npgemma.porting.logits.distances import Comparison, Explanation
from npgemma.porting.logits.question import Question
from npgemma.porting.mistakes import MISTAKES


def diagnose(answer: Answer, question: Question, dtype: str) -> dict[str, Any]:
    """Say whether a port is right, or which known mistake it makes; ``dtype`` is the port's.

    The report has the ``verdict`` (``right``, ``mistake`` or ``undecided``); ``says``, advice in words; ``mistakes``,
    the surest first; ``undecidable``, the mistakes that these logits cannot show, with reasons; ``own_error`` of all
    rows and ``row_errors`` of each; and ``rounding``, which a right port may have.
    """
    comparison, named, says = Comparison(answer, question, dtype), [], None
    possible = [mistake for mistake in MISTAKES.values() if mistake.possible_in(question.model.config)]
    tried = [comparison.explanation(mistake) for mistake in possible if mistake.shows_in_arrays]
    verdict, candidates = decide(comparison, tried)
    if verdict == "mistake":
        named = [_as_json(candidates[0].id, comparison.own_error, candidates[0].explained_error, candidates[0].c)]
    if verdict == "undecided":
        says = advice(comparison, candidates)
    else:
        named += [_as_json(id) for id in mistakes_of_tokens(answer.token_ids, question.model)]
        verdict = "mistake" if named else verdict
    names = [mistake["name"] for mistake in named]
    return {
        "verdict": verdict,
        "says": says,
        "dtype": dtype,
        "own_error": comparison.own_error,
        "rounding": comparison.limit,
        "row_errors": comparison.row_errors,
        "mistakes": named,
        "undecidable": [row for row in undecidable(comparison, tried, answer.token_ids) if row["name"] not in names],
    }


def decide(comparison: Comparison, tried: list[Explanation]) -> tuple[str, list[Explanation]]:
    """Return the verdict and the mistake; of an undecided port, all mistakes that explain it equally well."""
    nearest = min(tried, key=lambda explanation: explanation.explained_error)
    # Nothing but rounding tells apart what is as near as this, the right logits included.
    near = max(LOGITS_MARGIN * nearest.explained_error, LOGITS_LEAST * comparison.limit)
    if nearest.explained_error <= comparison.limit and comparison.own_error > near:
        alike = [explanation for explanation in tried if explanation.explained_error <= near]
        return ("mistake" if len(alike) == 1 else "undecided"), alike
    return ("right" if comparison.own_error <= comparison.limit else "undecided"), []


def advice(comparison: Comparison, candidates: list[Explanation]) -> str:
    """Say where to look in a port that is undecided."""
    if candidates:
        ids = ", ".join(candidate.id for candidate in candidates)
        return f"these known mistakes explain the logits equally well: {ids}"
    wider = [dtype for dtype, limit in LOGITS_ROUNDING.items() if comparison.own_error <= limit]
    if wider:
        return f"the distance is what rounding in {wider[-1]} makes: if the port calculates in it, say so with --dtype"
    wrong = next((i for i, error in enumerate(comparison.row_errors) if error > comparison.limit), 0)
    if wrong:
        return (
            f"rows before row {wrong} are right: look at the cache, at the positions and at the mask of a step; or "
            "token_ids are not those that the port went on from"
        )
    return (
        "the first row is wrong already: image or prompt may be others than the port's; if they are the same, the "
        "mistake is in the prefill or before it, and is none that is known: compare a trace"
    )


def mistakes_of_tokens(token_ids, model):
    """Return the ids of the known mistakes that the choice of tokens shows."""
    end, pad = model.config.eos_tokens, model.config.pad_token
    ended = [i for i, id in enumerate(token_ids) if id in end]
    # An answer that has ended may be padded.
    later = [id for id in token_ids[ended[0] + 1 :] if id != pad] if ended else []
    padded = [id for id in token_ids if id >= model.tokenizer.size]
    return ["padded-vocabulary-wins"] * bool(padded) + ["eos-ignored"] * bool(later)


def undecidable(comparison: Comparison, tried: list[Explanation], token_ids: list[int]) -> list[dict[str, str]]:
    """Return ``name`` and ``reason`` of each known mistake that these logits cannot show."""
    hidden = [explanation for explanation in tried if explanation.effect <= comparison.limit]
    reasons = {explanation.id: _reason(explanation, comparison) for explanation in hidden}
    ends = set(comparison.question.model.config.eos_tokens) & set(token_ids)
    for id, mistake in MISTAKES.items():
        if not mistake.shows_in_arrays and not (id == "eos-ignored" and ends):
            reasons[id] = mistake.unseen
    return [{"name": id, "reason": reasons[id]} for id in MISTAKES if id in reasons]


def _reason(explanation, comparison):
    unseen, effect = MISTAKES[explanation.id].unseen, explanation.effect
    # A mistake that changes nothing still rounds otherwise.
    if unseen and effect <= LOGITS_ROUNDING["float32"] / 10:
        return unseen
    return f"it moves these logits by {effect:.1e}, rounding in {comparison.dtype} by up to {comparison.limit:.0e}"


def _as_json(id, own_error=None, explained_error=None, c=None):
    # z is a mean over places in a model, of which logits know nothing.
    rest = {"own_error": own_error, "explained_error": explained_error, "c": c, "z": None}
    return {"name": id, "place": MISTAKES[id].place} | rest
