"""Compare a port with the reference: coverage, then the first wrong operation, then the tokens.

With the reference's model at hand every array is recalculated from the port's own inputs; without it, as with a stored
trace of a checkpoint that is not there, arrays are compared end to end.
"""

import dataclasses

import numpy as np

from npgemma.errors import InputError
from npgemma.porting.arrays import checked
from npgemma.porting.conventions import stored_as
from npgemma.porting.given_tokens import row_of
from npgemma.porting.graft import graft
from npgemma.porting.judge import judge_end_to_end, wrong_arrays
from npgemma.porting.reasons import explain
from npgemma.porting.recalculated import PROMPT, judge_alone
from npgemma.porting.reference import kind
from npgemma.porting.same_question import same_question
from npgemma.porting.tokens import comparable, parting

# The port's array that is not an activation: the tokens of its answer.
TOKENS = "token_ids"


def compare(reference, port, rules=(), dtype="float32", vocabulary=None, grafts=()):
    """Compare a port's arrays with a reference.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
    port : dict of str to array
        Under the port's own names; ``token_ids`` are the tokens of its answer, if it gives them.
    rules : list of npgemma.porting.name_map.Rule, optional
    dtype : str
        The port's.
    vocabulary : int, optional
        Rows of the embedding table that belong to tokens.
    grafts : sequence of str, optional
        Our names of the port's arrays to put in place of ours.

    Returns
    -------
    dict
        ``passed``; ``coverage``; ``first``, the first wrong operation, or None; ``others``, names of further ones;
        ``past_budget``, how many arrays are wrong; ``tokens``; ``largest``, the array that used most of its budget;
        ``other_prompt``, the text's tokens if the port read others, or None: what follows is
        then judged on the port's, if the reference has its model;
        ``stored_as``, what it stores in place of logits, which is undone first;
        ``judged_by``, ``own error`` or ``end to end``; ``own_errors``, those of each kind of operation beside the
        allowed ones (empty if end to end); ``graft``, as `npgemma.porting.graft.graft` gives it, or None.

    Raises
    ------
    InputError
        If nothing could be compared, so that there is no verdict.

    Examples
    --------
    >>> import npgemma
    >>> from npgemma.image import load_image
    >>> from npgemma.porting.reference import from_model
    >>> model = npgemma.load()
    >>> image = load_image(npgemma.example_image(), model.config.vision.image_size)
    >>> reference = from_model(model, image, model.tokenizer.prompt("caption en"), most=1)
    >>> port = {name: array.copy() for name, array in reference.arrays.items()}  # here go a port's arrays
    >>> port["prefill.0/x_BSD"][:, :64] *= 12  # sqrt(144): the image scaled like the text
    >>> report = compare(reference, port)
    >>> report["passed"], report["first"]["name"], report["first"]["says"][0]
    (False, 'prefill.0/x_BSD', 'rows 0 to 63 along S are 12 = sqrt(D) times what is expected')
    """
    port = checked(port, "the port")
    token_ids = row_of(port[TOKENS], f"the port's {TOKENS}") if TOKENS in port else None
    arrays = {name: array for name, array in port.items() if name != TOKENS}
    reference, coverage, other = same_question(reference, arrays, rules, token_ids is not None)
    allowed = set(comparable(coverage.pairs, token_ids, reference.token_ids))
    end_to_end = judge_end_to_end(reference, coverage, dtype)
    judged = {name: end_to_end[name] for name in end_to_end if name in allowed}
    if not judged:
        raise InputError(
            f"nothing to compare: none of the port's {len(port)} arrays has a name that the map or the reference "
            "knows; --check-map shows both sides"
        )
    own_errors = []
    if reference.model is not None:
        alone, own_errors = judge_alone(reference, coverage, judged, dtype)
        judged |= alone
    if other and PROMPT in judged:
        pair = dataclasses.replace(judged[PROMPT].pair, expected=np.array([other["expected"]]))
        judged[PROMPT] = dataclasses.replace(judged[PROMPT], pair=pair, error=None, right=False)
    wrong = wrong_arrays(reference, judged)
    parted = None if token_ids is None else parting(reference, token_ids, dtype, vocabulary)
    return {
        "passed": all(array.right for array in judged.values()) and not (parted and parted["verdict"] == "defect"),
        "dtype": dtype,
        "judged_by": "own error" if own_errors else "end to end",
        "own_errors": own_errors,
        "graft": graft(reference, coverage, grafts, dtype) if grafts else None,
        "other_prompt": other,
        "stored_as": sorted({kind for name, array in coverage.found.items() if (kind := stored_as(name, array))}),
        "coverage": coverage.counts() | {"compared": sum(array.pair.found is not None for array in judged.values())},
        "first": _as_json(wrong[0], reference, judged) if wrong else None,
        "others": [operation.judged.pair.name for operation in wrong[1:]],
        "past_budget": sum(not array.right for array in judged.values() if array.pair.found is not None),
        "largest": _largest(judged),
        "tokens": {"found": token_ids, "expected": reference.token_ids, "parted": parted},
    }


def _as_json(wrong, reference, judged):
    """Return a wrong operation in plain values."""
    pair, entry = wrong.judged.pair, reference.entries[wrong.judged.pair.name]
    keys = ["name", "formula", "file", "weights"]
    return {
        "name": pair.name,
        "port": pair.port,
        "relative_l2": wrong.judged.error,
        "budget": wrong.judged.budget,
        "alone": wrong.judged.alone,
        "shapes": {"expected": list(pair.expected.shape), "found": list(pair.raw.shape)},
        "operation": {key: getattr(entry, key) for key in keys},
        "inputs": {name: judged[name].error for name in wrong.inputs if judged[name].error is not None},
        "between": [{key: getattr(reference.entries[name], key) for key in keys} for name in wrong.between],
        "says": explain(wrong.judged, entry.axes, _sizes(reference, pair.name)),
    }


def _sizes(reference, name):
    """Return the sizes of axes in the tower that makes an array."""
    in_vision = name.startswith("encode_image")
    entries = [entry for other, entry in reference.entries.items() if other.startswith("encode_image") == in_vision]
    return {axis: size for entry in entries for axis, size in zip(entry.axes, entry.shape) if axis in "DHNKF"}


def _largest(judged):
    """Return the array that used most of its budget, and how much."""
    measured = {name: array for name, array in judged.items() if array.error is not None and array.budget}
    shares = {name: array.error / array.budget for name, array in measured.items()}
    name = max(shares, key=shares.get, default=None)
    return name and {"name": name, "kind": kind(name), "percent_of_budget": 100 * shares[name]}
