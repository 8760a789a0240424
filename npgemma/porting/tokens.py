"""Where a port's tokens part from ours: could rounding have done it?"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from npgemma.porting.bounds import BOUNDS, PEAK
from npgemma.porting.coverage import Pair
from npgemma.porting.given_tokens import row_of
from npgemma.porting.reference import Reference


def passes(count):
    """Return the names of the passes whose logits choose the first ``count`` tokens."""
    return ["prefill.0", *(f"step.{i}" for i in range(count - 1))][:count]


def other_prompt(pairs: dict[str, Pair]) -> dict[str, list[int]] | None:
    """Return the text's ids, ``expected`` and ``found``, if the port read others than the reference."""
    pair = pairs.get("prefill.0/ids_BT")
    if pair is None:
        return None
    found, expected = (row_of(ids, pair.name) for ids in (pair.shown, pair.expected))
    return None if found == expected else {"expected": expected, "found": found}


def parting(
    reference: Reference, token_ids: list[int], dtype: str, vocabulary: int | None = None
) -> dict[str, Any] | None:
    """Return where a port, after the same tokens, chose another one than the reference; None if it did not.

    The report has the ``index``, the tokens ``expected`` and ``found``, the ``margin`` between their logits in the
    reference, by how much rounding is ``allowed`` to change it, and the ``verdict``: ``rounding`` or ``defect``.
    ``vocabulary`` is the number of rows of the embedding table that belong to tokens, by default all.
    """
    for i, (name, token) in enumerate(zip(passes(len(token_ids)), token_ids)):
        logit_BV = reference.arrays.get(f"{name}/logit_BV")
        if logit_BV is None or list(token_ids[:i]) != list(reference.token_ids[:i]):
            return None
        logit_V = np.asarray(logit_BV, np.float64)[0]
        best = int(logit_V[:vocabulary].argmax())
        if best != token:
            margin = float(logit_V[best] - logit_V[token]) if 0 <= token < logit_V.size else np.inf
            allowed = float(2 * PEAK * BOUNDS[dtype] * np.sqrt(np.square(logit_V).mean()))
            verdict = "rounding" if margin <= allowed else "defect"
            about = {"margin": margin, "allowed": allowed, "verdict": verdict}
            return {"index": i, "expected": best, "found": int(token)} | about
    return None


def comparable(names: Iterable[str], token_ids: list[int] | None, fed: list[int]) -> list[str]:
    """Return the names of arrays that both sides made from the same tokens: the port's ``token_ids`` (None if it does
    not give them), and those that the reference was fed.
    """
    if token_ids is None:
        return list(names)
    equal = next((i for i, (found, expected) in enumerate(zip(token_ids, fed)) if found != expected), len(fed))
    steps = {name: re.match(r"step\.(\d+)/", name) for name in names}
    return [name for name, step in steps.items() if step is None or int(step[1]) < equal]
