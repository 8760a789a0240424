"""From the distances of a port's logits to a verdict: a name only where everything else is twice as far."""

from npgemma.config import Gemma2Config
from npgemma.porting.bounds import LOGITS_LEAST, LOGITS_MARGIN, LOGITS_ROUNDING
from npgemma.porting.logits.distances import Comparison
from npgemma.porting.logits.question import AROUND, touches
from npgemma.porting.mistakes import MISTAKES


def diagnose(answer, question, dtype):
    """Say whether a port is right, or which known mistake it makes.

    Parameters
    ----------
    answer, question, dtype
        As for `Comparison`.

    Returns
    -------
    dict
        ``verdict`` (``right``, ``mistake`` or ``undecided``); ``says``, advice in words; ``mistakes``, surest first;
        ``undecidable``, the mistakes that these logits cannot show, with reasons; ``own_error`` of all rows,
        ``row_errors`` of each, and ``rounding``, what a right port may have.
    """
    comparison, named, says = Comparison(answer, question, dtype), [], None
    tried = [comparison.hypothesis(mistake) for mistake in shown_in_logits(question.model.config)]
    verdict, candidates = judge(comparison, tried)
    if verdict == "mistake":
        named = [_as_json(candidates[0].id, comparison.own_error, candidates[0].explained_error, candidates[0].c)]
    if verdict == "undecided":
        says = advice(comparison, candidates)
    else:
        named += [_as_json(id) for id in mistakes_of_tokens(answer.token_ids, question.model)]
        verdict = "mistake" if named else verdict
    return {
        "verdict": verdict,
        "says": says,
        "dtype": dtype,
        "own_error": comparison.own_error,
        "rounding": comparison.limit,
        "row_errors": comparison.row_errors,
        "mistakes": named,
        "undecidable": [
            each
            for each in undecidable(comparison, tried, answer.token_ids)
            if each["name"] not in [one["name"] for one in named]
        ],
    }


def shown_in_logits(config):
    """Return the known mistakes that a model of these sizes can have, without those in what is made of logits."""
    gemma2 = isinstance(config.text, Gemma2Config)
    possible = [mistake for mistake in MISTAKES.values() if gemma2 or not mistake.only_gemma2]
    return [mistake for mistake in possible if not touches(mistake.variants[0], AROUND)]


def judge(comparison, tried):
    """Decide.

    Parameters
    ----------
    comparison : Comparison
    tried : list of Hypothesis

    Returns
    -------
    verdict : str
    candidates : list of Hypothesis
        The mistake; of an undecided port the mistakes that explain it equally well, if any do.
    """
    nearest = min(tried, key=lambda one: one.explained_error)
    # Whatever is as near as this is told apart by rounding alone, the right logits included.
    near = max(LOGITS_MARGIN * nearest.explained_error, LOGITS_LEAST * comparison.limit)
    if nearest.explained_error <= comparison.limit and comparison.own_error > near:
        alike = [one for one in tried if one.explained_error <= near]
        return ("mistake" if len(alike) == 1 else "undecided"), alike
    return ("right" if comparison.own_error <= comparison.limit else "undecided"), []


def advice(comparison, candidates):
    """Say of a port that is wrong in an unknown way where to look."""
    if candidates:
        return "these known mistakes explain the logits equally well: " + ", ".join(one.id for one in candidates)
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


def undecidable(comparison, tried, token_ids):
    """List the known mistakes that these logits cannot show.

    Parameters
    ----------
    comparison : Comparison
    tried : list of Hypothesis
    token_ids : list of int

    Returns
    -------
    list of dict
        ``name`` and ``reason``.
    """
    reasons = {one.id: _reason(one, comparison) for one in tried if one.effect <= comparison.limit}
    ends = set(comparison.question.model.config.eos_tokens) & set(token_ids)
    for id, mistake in MISTAKES.items():
        if touches(mistake.variants[0], AROUND) and not (id == "eos-ignored" and ends):
            reasons[id] = mistake.unseen
    return [{"name": id, "reason": reasons[id]} for id in MISTAKES if id in reasons]


def _reason(one, comparison):
    mistake = MISTAKES[one.id]
    # What changes nothing still rounds otherwise.
    if mistake.unseen and one.effect <= LOGITS_ROUNDING["float32"] / 10:
        return mistake.unseen
    return f"it moves these logits by {one.effect:.1e}, rounding in {comparison.dtype} by up to {comparison.limit:.0e}"


def _as_json(id, own_error=None, explained_error=None, c=None):
    # z is a mean over places in a model, of which logits know nothing.
    rest = {"own_error": own_error, "explained_error": explained_error, "c": c, "z": None}
    return {"name": id, "place": MISTAKES[id].place} | rest
