"""How far a port's logits are from the right ones, and from those under each known mistake."""

from dataclasses import dataclass

import numpy as np

from npgemma.errors import InputError
from npgemma.porting.bounds import LOGITS_MARGIN, LOGITS_OWN, LOGITS_ROUNDING, LOGITS_ROWS
from npgemma.porting.logits.answer_file import Answer
from npgemma.porting.logits.question import Question
from npgemma.porting.mistakes import Mistake
from npgemma.porting.mistakes.injection import counted_from
from npgemma.porting.narrow import NARROW


@dataclass(frozen=True)
class Explanation:
    """The logits under one known mistake, compared with the port's and with the right ones; relative L2 distances."""

    id: str
    explained_error: float  # from the port
    effect: float  # from the right logits
    c: float | None  # the part of the mistake's effect that is in the port: 1 if it is there, 0 if not


class Comparison:
    """A port's logits beside the right ones, and beside those with each known mistake; ``dtype`` is the port's."""

    def __init__(self, answer: Answer, question: Question, dtype: str):
        self.question, self.dtype = question, dtype
        self.stored, self.columns = answer.stored, answer.logits.shape[1]
        found, right = self._known(answer.logits), self._run(None, None)
        if right.shape != found.shape:
            raise InputError(f"{len(found)} tokens do not fit the model's context after this prompt")
        error, size = np.linalg.norm(found - right, axis=1), np.linalg.norm(right, axis=1)
        self.row_errors = (error / np.maximum(size, np.linalg.norm(found, axis=1))).tolist()
        # Mistakes are tried on the first rows.
        self.found, self.right = found[:LOGITS_ROWS], right[:LOGITS_ROWS]
        # Of the larger ones: rounding grows with the numbers, and a mistake may make a port's many times larger.
        self.norm = max(float(np.linalg.norm(self.right)), float(np.linalg.norm(self.found)))
        self.own_error = self._distance(self.right, self.found)
        self.limit = self.limit_of(dtype)

    def limit_of(self, dtype: str) -> float:
        """Return how far a right port of a dtype may be from the right logits; in a narrow one, as far as rounding
        moves the reference's own, `LOGITS_OWN` times.
        """
        if dtype not in NARROW:
            return LOGITS_ROUNDING
        runs = [self._known(logits) for logits in self.question.narrow(dtype, LOGITS_ROWS)]
        return LOGITS_OWN * float(np.sqrt(np.mean([self._distance(logits, self.right) ** 2 for logits in runs])))

    def _run(self, changes, rows):
        return self._known(self.question.logits(changes, rows))

    def _known(self, logits):
        """Return what is known of logits: the port's columns, and of a softmax no common sum."""
        logits = logits[:, : self.columns].astype(np.float64)
        return logits - logits.mean(axis=1, keepdims=True) if self.stored else logits

    def explanation(self, mistake: Mistake) -> Explanation:
        """Return the distances of a mistake's variant that is nearest to the port."""
        origins = (0, 1) if mistake.counts else (0,)
        wrong = [{**changes, **counted_from(origin)} for origin in origins for changes in mistake.variants]
        variants = [self._variant(mistake.id, changes) for changes in wrong]
        nearest = min(variants, key=lambda variant: variant.explained_error)
        # The effect of the usual variant says whether these logits can show the mistake.
        return Explanation(mistake.id, nearest.explained_error, variants[0].effect, nearest.c)

    def _variant(self, id, changes):
        """Compare one variant; if the first row shows that it does not matter, without further rows."""
        wrong = self._run(changes, 1)
        if self._matters(wrong):
            wrong = self._run(changes, LOGITS_ROWS)
        rows = len(wrong)
        error, effect = self.found[:rows] - self.right[:rows], wrong - self.right[:rows]
        square = float(np.vdot(effect, effect))
        c = float(np.vdot(error, effect)) / square if square else None
        return Explanation(id, self._distance(wrong, self.found), self._distance(wrong, self.right), c)

    def _matters(self, first):
        """Say whether more rows could bring a mistake near the port, or show an effect that the first row does not."""
        near_port, near_right = self._distance(first, self.found), self._distance(first, self.right)
        near = max(LOGITS_MARGIN * self.limit, self.own_error / 2)
        return len(self.found) > 1 and (near_port <= near or near_right <= self.limit)

    def _distance(self, logits, others):
        """Return the distance of the rows that ``logits`` has, which is the least that it can be with all rows."""
        distance = float(np.linalg.norm(logits - others[: len(logits)])) / self.norm
        # A mistake may overflow.
        return distance if np.isfinite(distance) else np.inf
