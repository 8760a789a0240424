"""The logits and tokens that a port has written."""

from dataclasses import dataclass

import numpy as np

from npgemma.errors import InputError
from npgemma.machinery.model import Model
from npgemma.porting.arrays import read_arrays
from npgemma.porting.conventions import stored_as
from npgemma.porting.given_tokens import check, row_of


@dataclass(frozen=True)
class Answer:
    """What a port has written."""

    logits: np.ndarray  # (n, V)
    token_ids: list[int]  # n: the token chosen from each row
    stored: str | None = None  # "softmax" or "log-softmax" if that was in their place: they are known up to a sum then


def read_answer(path: str, model: Model) -> Answer:
    """Read a port's ``logits`` (n, V) and ``token_ids`` (n,) from a safetensors or npz file, without the rows that pad
    the vocabulary: ports differ in these. Raises `InputError` if the file is damaged or does not fit the model.
    """
    arrays = read_arrays(path, only=["logits", "token_ids"])
    logits, ids = arrays["logits"], arrays["token_ids"]
    if logits.ndim != 2 or logits.dtype.kind != "f" or 0 in logits.shape:
        expected = "floating-point numbers (n, V), a row for each token of the answer"
        raise InputError(f"logits in '{path}' should be {expected}, found {logits.dtype} {logits.shape}")
    if ids.shape != logits.shape[:1]:
        expected = f"{len(logits)} whole numbers, the token chosen from each row of logits"
        raise InputError(f"token_ids in '{path}' should be {expected}, found {ids.dtype} {ids.shape}")
    name, pieces, context = f"token_ids in '{path}'", model.tokenizer.size, model.config.text.context_length
    token_ids = row_of(ids, name)
    check(token_ids, model, name)
    if logits.shape[1] < pieces or len(logits) > context:
        raise InputError(
            f"logits in '{path}' should have at least {pieces} columns, one for each token of the checkpoint, and at "
            f"most {context} rows, found {logits.shape[1]} and {len(logits)}"
        )
    stored = stored_as("logits", logits)
    logits = logits[:, :pieces].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise InputError(f"row {bad[0]} of the logits in '{path}' is not finite: find out first where NaN comes from")
    return Answer(np.log(logits) if stored == "softmax" else logits, token_ids, stored)
