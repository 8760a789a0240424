"""Where a port's tokens part from ours: could rounding have done it?"""

import re

import numpy as np

from npgemma.porting.bounds import BOUNDS, PEAK


def passes(count):
    """Return the names of the passes whose logits choose the first ``count`` tokens."""
    return ["prefill.0", *(f"step.{i}" for i in range(count - 1))][:count]


def other_prompt(pairs):
    """Return the prompt's tokens where a port read others than the reference.

    Parameters
    ----------
    pairs : dict of str to npgemma.porting.coverage.Pair

    Returns
    -------
    dict or None
        ``expected`` and ``found``: their ids. None if they are the same, or the port does not show them.
    """
    pair = pairs.get("prefill.0/ids_BT")
    if pair is None:
        return None
    # As the map takes them: without the image tokens that some ports have in front, for instance.
    found, expected = (
        np.ravel(each).astype(int) for each in (pair.raw if pair.found is None else pair.found, pair.expected)
    )
    return None if np.array_equal(found, expected) else {"expected": expected.tolist(), "found": found.tolist()}


def parting(reference, token_ids, dtype, vocabulary=None):
    """Return where a port chose another token than ours does at the same place.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
    token_ids : list of int
        The port's.
    dtype : str
    vocabulary : int, optional
        Rows of the table that belong to tokens; by default all.

    Returns
    -------
    dict or None
        ``index``, ``expected`` and ``found`` (the tokens), ``margin`` (the distance of their logits here), ``allowed``
        (by how much rounding can move it), and ``verdict``: ``rounding`` or ``defect``.
    """
    fed = reference.token_ids
    for i, (name, token) in enumerate(zip(passes(len(token_ids)), token_ids)):
        row = reference.arrays.get(f"{name}/logit_BV")
        if row is None or list(token_ids[:i]) != list(fed[:i]):
            return None
        row = np.asarray(row, np.float64)[0]
        best = int(row[:vocabulary].argmax())
        if best != token:
            margin = float(row[best] - row[token]) if 0 <= token < row.size else np.inf
            allowed = float(2 * PEAK * BOUNDS[dtype] * np.sqrt(np.square(row).mean()))
            verdict = "rounding" if margin <= allowed else "defect"
            about = {"margin": margin, "allowed": allowed, "verdict": verdict}
            return {"index": i, "expected": best, "found": int(token)} | about
    return None


def comparable(port_names, token_ids, fed):
    """Return the names of our arrays that were made from the same tokens on both sides.

    Parameters
    ----------
    port_names : iterable of str
        Ours.
    token_ids : list of int or None
        The port's; None if it does not tell.
    fed : list of int
        The reference's.

    Returns
    -------
    list of str
    """
    if token_ids is None:
        return list(port_names)
    equal = next((i for i, (one, other) in enumerate(zip(token_ids, fed)) if one != other), len(fed))
    step = {name: re.match(r"step\.(\d+)/", name) for name in port_names}
    return [name for name, found in step.items() if found is None or int(found[1]) < equal]
