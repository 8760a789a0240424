"""The embedding table and the output head, which in PaliGemma are one table, however a folder stores it."""

import numpy as np

from conversion.layout import StoredLeaf
from npgemma.errors import InputError
from npgemma.fast.bfloat16 import narrow, widen
from npgemma.files.tokenizer_files import has_tokenizer
from npgemma.tokenizer import Tokenizer

HEADS = "lm_head.weight", "language_model.lm_head.weight"
# Rows that are compared at once: tables have hundreds of megabytes.
ROWS = 4096


def table_of(tensors: dict, leaf: StoredLeaf, folder):
    """Take the embedding table out of tensors by canonical names, and the output head with it; return one, or None.

    Some writers keep the head alone, some both, and some the head in another dtype. InputError if the two differ after
    rounding to the narrower dtype, in a row that belongs to a token by the folder's tokenizer: rows past its last token
    are noise, drawn apart for head and table when the published checkpoints were converted.
    """
    table = tensors.pop(leaf.stored_name, None)
    found = [tensors.pop(name) for name in HEADS if name in tensors]
    if not found or table is None:
        return found[0] if found else table
    for head in found:
        if head.shape[1:] != table.shape[1:] or not _equal(head, table, folder):
            raise InputError(
                f"'{folder}' has an untied output head: tensor {head.name} differs from the table {table.name}, but in "
                "PaliGemma the two are one table; npgemma cannot run this model"
            )
    return table


def _equal(head, table, folder):
    """Return whether the rows that belong to tokens are equal."""
    common = min(len(head.array), len(table.array))
    if len(head.array) == len(table.array) and _equal_rows(head, table, common):
        return True
    # Only now is it worth while to read the tokenizer.
    used = _used_rows(folder)
    return used is not None and used <= common and _equal_rows(head, table, used)


def _equal_rows(head, table, count):
    """Return whether the first rows are equal, which are compared a few at a time."""
    pieces = (slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS))
    return all(np.array_equal(*_rounded(head, table, rows), equal_nan=True) for rows in pieces)


def _rounded(head, table, rows):
    """Return some rows of both, rounded to the narrower dtype of the two."""
    dtypes = {head.dtype, table.dtype}
    parts = [(tensor.wide if dtypes == {"F64"} else tensor.single)(tensor.array[rows]) for tensor in (head, table)]
    if len(dtypes) > 1 and "F16" in dtypes:
        with np.errstate(over="ignore"):
            parts = [part.astype(np.float16).astype(np.float32) for part in parts]
    # Neither float16 nor bfloat16 holds the other: the one has the smaller exponent, the other the smaller mantissa.
    return [widen(narrow(part)) for part in parts] if len(dtypes) > 1 and "BF16" in dtypes else parts


def _used_rows(folder):
    """Return how many rows belong to tokens, or None where no tokenizer says so."""
    return Tokenizer(folder).size if has_tokenizer(folder) else None
