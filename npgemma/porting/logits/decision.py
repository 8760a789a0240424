"""From the distances of a port's logits to a verdict: a name only where everything else is twice as far."""

from typing import Any

import numpy as np

from npgemma.porting.bounds import LOGITS_LEAST, LOGITS_MARGIN, LOGITS_REST, LOGITS_ROUNDING, LOGITS_ROWS
from npgemma.porting.logits.answer_file import Answer
from npgemma.porting.logits.distances import Comparison, Explanation
from npgemma.porting.logits.question import Question
from npgemma.porting.mistakes import MISTAKES
from npgemma.porting.narrow import NARROW, dtype_of


def diagnose(answer: Answer, question: Question, dtype: str | None = None) -> dict[str, Any]:
    """Say whether a port is right, or which known mistake it makes; ``dtype`` is the port's, by default the narrowest
    that holds its logits.

    The report has the ``verdict``: ``right``; ``rounding``, of a narrow port that is no farther off than rounding may
    be, which proves nothing; ``mistake`` or ``undecided``. Then ``says``, advice in words; ``mistakes``, the surest
    first; ``nearest``, of an undecided port the known mistakes that explain at least half of its distance;
    ``undecidable``, the mistakes that these logits cannot show, with reasons; ``own_error`` of the first `LOGITS_ROWS`
    rows and ``row_errors`` of all; ``rounding``, which a right port may have; and ``stored_as``, what the port has in
    place of logits, or None.
    """
    comparison, named = Comparison(answer, question, dtype or dtype_of([answer.logits])), []
    possible = [mistake for mistake in MISTAKES.values() if mistake.possible_in(question.model.config)]
    tried = [comparison.explanation(mistake) for mistake in possible if mistake.shows_in_arrays]
    verdict, candidates = decide(comparison, tried)
    if verdict == "mistake":
        named = [_as_json(candidates[0].id, comparison.own_error, candidates[0].explained_error, candidates[0].c)]
    if verdict != "undecided":
        named += [_as_json(id) for id in mistakes_of_tokens(answer.token_ids, question.model)]
        verdict = "mistake" if named else verdict
    names = [mistake["name"] for mistake in named]
    says = [advice(verdict, comparison, candidates, dtype is not None)]
    unlikely = unlikely_tokens(answer, question.model)
    if unlikely and verdict in ("right", "rounding"):
        says.append(f"token {unlikely[0]} is not the most probable one of its own row: right only if the port samples")
    return {
        "verdict": verdict,
        "says": "; ".join(filter(None, says)) or None,
        "dtype": comparison.dtype,
        "stored_as": answer.stored,
        "own_error": comparison.own_error,
        "rounding": comparison.limit,
        "row_errors": comparison.row_errors,
        "mistakes": named,
        "nearest": nearest(comparison, tried) if verdict == "undecided" else [],
        "undecidable": [row for row in undecidable(comparison, tried, answer.token_ids) if row["name"] not in names],
    }


def decide(comparison: Comparison, tried: list[Explanation]) -> tuple[str, list[Explanation]]:
    """Return the verdict and the mistake; of an undecided port, all mistakes that explain it equally well."""
    nearest = min(tried, key=lambda explanation: explanation.explained_error)
    # Nothing but rounding tells apart what is as near as this, the right logits included.
    near = max(LOGITS_MARGIN * nearest.explained_error, LOGITS_LEAST * comparison.limit)
    explained = max(comparison.limit, LOGITS_REST * comparison.own_error)
    if nearest.explained_error <= explained and comparison.own_error > near:
        alike = [explanation for explanation in tried if explanation.explained_error <= near]
        return ("mistake" if len(alike) == 1 else "undecided"), alike
    later = comparison.row_errors[LOGITS_ROWS:]
    if comparison.own_error > comparison.limit or max(later, default=0.0) > LOGITS_MARGIN * comparison.limit:
        return "undecided", []
    return ("right" if comparison.own_error <= LOGITS_ROUNDING else "rounding"), []


def nearest(comparison: Comparison, tried: list[Explanation]) -> list[dict[str, Any]]:
    """Return the known mistakes, three at most, that explain at least half of a port's distance, and how much of it."""
    if comparison.own_error <= comparison.limit:
        return []
    parts = {each.id: 1 - each.explained_error / comparison.own_error for each in tried}
    best = sorted(((part, id) for id, part in parts.items() if part >= 0.5), reverse=True)[:3]
    return [{"name": id, "explains": part} for part, id in best]


def advice(verdict: str, comparison: Comparison, candidates: list[Explanation], stated: bool) -> str | None:
    """Say what a verdict leaves open, and where to look; ``stated`` says that the port's dtype was."""
    if verdict == "rounding":
        return (
            f"no farther than rounding in {comparison.dtype} can be; this does not prove it right: run the port in "
            "float32, or compare a trace"
        )
    if verdict == "mistake" and candidates and candidates[0].explained_error > comparison.limit:
        return "more is left than a right program rounds: mend this one and ask again, there may be another beside it"
    if verdict != "undecided":
        return None
    if candidates:
        ids = ", ".join(candidate.id for candidate in candidates)
        return f"these known mistakes explain the logits equally well: {ids}"
    possible = [] if stated else [each for each in NARROW if comparison.own_error <= comparison.limit_of(each)]
    if possible:
        return (
            f"no farther than rounding in {' or '.join(possible)} can be: if the port calculates in it, say so with "
            "--dtype; it proves nothing then, and a trace would"
        )
    if comparison.own_error > comparison.limit and (otherwise := known_otherwise(comparison)):
        return otherwise
    # A single row may be farther off than all together.
    most = LOGITS_MARGIN * comparison.limit
    wrong = next((i for i, error in enumerate(comparison.row_errors) if error > most), 0)
    if wrong:
        return (
            f"rows before row {wrong} are right: look at the cache, at the positions and at the mask of a step; or "
            "token_ids are not those that the port went on from"
        )
    return (
        "the first row is wrong already: image or prompt may be others than the port's; if they are the same, the "
        "mistake is in the prefill or before it, and is none that is known (weights that were not loaded have the "
        "numbers that they began with, so that no known mistake is near): compare a trace"
    )


def known_otherwise(comparison: Comparison) -> str | None:
    """Say so if the rows are right but for a number added to each, or stand one row too early."""
    found, right = comparison.found, comparison.right
    differences = found - right
    near = comparison.limit * comparison.norm
    if np.linalg.norm(differences - differences.mean(axis=1, keepdims=True)) <= near:
        return "right but for a number that is added to a whole row, which changes no probability: leave it out"
    if len(found) > 1 and np.linalg.norm(found[:-1] - right[1:]) <= near:
        return (
            "the rows stand one too early: row i should hold the logits that token i is chosen from, not the next one"
        )
    return None


def unlikely_tokens(answer: Answer, model) -> list[int]:
    """Return the places of tokens that are not the most probable of their own rows, up to the end of the answer."""
    ids = answer.token_ids
    end = next((i for i, id in enumerate(ids) if id in model.config.eos_tokens), len(ids) - 1)
    return [i for i in range(end + 1) if answer.logits[i].argmax() != ids[i]]


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
    if unseen and effect <= LOGITS_ROUNDING / 10:
        return unseen
    return f"it moves these logits by {effect:.1e}, rounding in {comparison.dtype} by up to {comparison.limit:.1e}"


def _as_json(id, own_error=None, explained_error=None, c=None):
    # z is a mean over places in a model, of which logits know nothing.
    rest = {"own_error": own_error, "explained_error": explained_error, "c": c, "z": None}
    return {"name": id, "place": MISTAKES[id].place} | rest
