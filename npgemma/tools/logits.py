"""Name a port's mistake from its logits alone: no hooks and no names are needed, and every port has them.

The model answers with the tokens that the port chose, once as it is and once with each known mistake. A mistake is
named only if the port is within rounding of it and twice as far from anything else, so that a mistake which is not in
the library gets no name, least of all the nearest one's.
"""

from dataclasses import dataclass

import numpy as np

from npgemma.config import Gemma2Config
from npgemma.errors import InputError
from npgemma.tools.arrays import read_arrays
from npgemma.tools.hypotheses import AROUND, touches
from npgemma.tools.mistakes import MISTAKES

# How far a right port may be: relative L2 distance of its logits. Largest of Hugging Face's on the embedded checkpoint,
# eight images and four prompts, six rows each: 1.3e-6, 2.2e-2 and 2.0e-3; medians 6.5e-7, 9.0e-3 and 1.0e-3.
# The reference itself is float32.
ROUNDING = {"float64": 5e-6, "float32": 5e-6, "bfloat16": 6e-2, "float16": 6e-3}
# Of a port that is nearer than this part of it, rounding alone decides what it is nearest to.
LEAST = 0.25
# How much farther than the mistake that is named everything else must be.
MARGIN = 2
# Further rows show nothing that these do not, and every row takes as long as a token.
ROWS = 8


@dataclass(frozen=True)
class Answer:
    """What a port has written.

    Parameters
    ----------
    logits : array (n, V)
    token_ids : list of int
        As many: the token chosen from each row.
    """

    logits: np.ndarray
    token_ids: list[int]


def read_answer(path, model):
    """Read a port's logits and tokens.

    Parameters
    ----------
    path : str
        A safetensors or npz file with ``logits`` (n, V) and ``token_ids`` (n,).
    model : npgemma.Model

    Returns
    -------
    Answer
        Without rows that pad the vocabulary: ports differ in these.

    Raises
    ------
    InputError
        If the file is damaged, or does not fit the model.
    """
    found = read_arrays(path, only=["logits", "token_ids"])
    logits, ids = found["logits"], found["token_ids"]
    if logits.ndim != 2 or logits.dtype.kind != "f" or 0 in logits.shape:
        expected = "floating-point numbers (n, V), a row for each token of the answer"
        raise InputError(f"logits in '{path}' should be {expected}, found {logits.dtype} {logits.shape}")
    if ids.shape != logits.shape[:1] or ids.dtype.kind not in "iu":
        expected = f"{len(logits)} whole numbers, the token chosen from each row of logits"
        raise InputError(f"token_ids in '{path}' should be {expected}, found {ids.dtype} {ids.shape}")
    pieces, rows = model.tokenizer.size, model.config.text.vocabulary
    if logits.shape[1] < pieces:
        raise InputError(
            f"logits in '{path}' should have at least {pieces} columns, one for each token of the checkpoint, "
            f"found {logits.shape[1]}"
        )
    if not 0 <= ids.min() <= ids.max() < rows:
        raise InputError(f"token_ids should lie between 0 and {rows - 1}, found {ids.min()} to {ids.max()}")
    logits = logits[:, :pieces].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise InputError(f"row {bad[0]} of the logits in '{path}' is not finite: find out first where NaN comes from")
    return Answer(logits, ids.tolist())


@dataclass(frozen=True)
class Hypothesis:
    """The logits under one known mistake, compared with the port's and with the right ones; relative L2 distances."""

    id: str
    explained_error: float  # from the port
    effect: float  # from the right logits
    c: float | None  # the part of the mistake's effect that is in the port: 1 if it is there, 0 if not


class Comparison:
    """A port's logits beside the right ones, and beside those with each known mistake.

    Parameters
    ----------
    answer : Answer
    question : npgemma.tools.hypotheses.Question
        With the answer's tokens.
    dtype : str
        What the port calculates in: a key of `ROUNDING`.
    """

    def __init__(self, answer, question, dtype):
        self.question, self.dtype, self.limit = question, dtype, ROUNDING[dtype]
        self.found, self.columns = answer.logits[:ROWS], answer.logits.shape[1]
        self.right = self._run(None, ROWS)
        if self.right.shape != self.found.shape:
            raise InputError(f"{len(self.found)} tokens do not fit the model's context behind this prompt")
        self.norm = float(np.linalg.norm(self.right))
        error = np.linalg.norm(self.found - self.right, axis=1)
        self.own_error = float(np.linalg.norm(error)) / self.norm
        self.row_errors = (error / np.linalg.norm(self.right, axis=1)).tolist()

    def _run(self, changes, rows):
        return self.question.logits(changes, rows)[:, : self.columns].astype(np.float64)

    def hypothesis(self, mistake):
        """Return the way of a mistake that is nearest to the port.

        Parameters
        ----------
        mistake : npgemma.tools.mistakes.Mistake

        Returns
        -------
        Hypothesis
        """
        ways = [self._way(mistake.id, changes) for changes in mistake.ways]
        nearest = min(ways, key=lambda way: way.explained_error)
        # The usual way tells whether these logits can show the mistake.
        return Hypothesis(mistake.id, nearest.explained_error, ways[0].effect, nearest.c)

    def _way(self, id, changes):
        """Compare one way; of logits whose first row is far from everything that matters, no more rows."""
        wrong = self._run(changes, 1)
        if self._matters(wrong):
            wrong = self._run(changes, ROWS)
        rows = len(wrong)
        error, effect = self.found[:rows] - self.right[:rows], wrong - self.right[:rows]
        square = float(np.vdot(effect, effect))
        c = float(np.vdot(error, effect)) / square if square else None
        return Hypothesis(id, self._apart(wrong, self.found), self._apart(wrong, self.right), c)

    def _matters(self, first):
        """Say whether more rows could bring a mistake near the port, or show an effect that the first row does not."""
        return (
            self._apart(first, self.found) <= MARGIN * self.limit or self._apart(first, self.right) <= self.limit
        ) and len(self.found) > 1

    def _apart(self, logits, others):
        """Return the distance of the rows that there are: the least that it can be with all rows."""
        apart = float(np.linalg.norm(logits - others[: len(logits)])) / self.norm
        # A mistake may overflow.
        return apart if np.isfinite(apart) else np.inf


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
    return [mistake for mistake in possible if not touches(mistake.ways[0], AROUND)]


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
    near = max(MARGIN * nearest.explained_error, LEAST * comparison.limit)
    if nearest.explained_error <= comparison.limit and comparison.own_error > near:
        alike = [one for one in tried if one.explained_error <= near]
        return ("mistake" if len(alike) == 1 else "undecided"), alike
    return ("right" if comparison.own_error <= comparison.limit else "undecided"), []


def advice(comparison, candidates):
    """Say of a port that is wrong in an unknown way where to look."""
    if candidates:
        return "these known mistakes explain the logits equally well: " + ", ".join(one.id for one in candidates)
    wider = [dtype for dtype, limit in ROUNDING.items() if comparison.own_error <= limit]
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
        if touches(mistake.ways[0], AROUND) and not (id == "eos-ignored" and ends):
            reasons[id] = mistake.unseen
    return [{"name": id, "reason": reasons[id]} for id in MISTAKES if id in reasons]


def _reason(one, comparison):
    mistake = MISTAKES[one.id]
    # What changes nothing still rounds otherwise.
    if mistake.unseen and one.effect <= ROUNDING["float32"] / 10:
        return mistake.unseen
    return f"it moves these logits by {one.effect:.1e}, rounding in {comparison.dtype} by up to {comparison.limit:.0e}"


def _as_json(id, own_error=None, explained_error=None, c=None):
    # z is a mean over places in a model, of which logits know nothing.
    rest = {"own_error": own_error, "explained_error": explained_error, "c": c, "z": None}
    return {"name": id, "place": MISTAKES[id].place} | rest
