"""The shape of a JSON document from outside: declared by its reader, and checked here before anything is used."""

import math
from typing import Any

from npgemma.errors import InputError
from npgemma.files.foreign import shown

WORDS = {
    str: "a text", bool: "true or false", int: "a whole number", float: "a finite number", None: "null",
    dict: "an object", list: "a list", object: "anything",
}  # fmt: skip
# Whole numbers beyond it fit no array.
LARGEST = 2**63


def check(value: Any, shape: Any, name: str) -> None:
    """Raise InputError if a value of a JSON document does not have a shape.

    A shape is ``str``, ``bool``, ``int`` (a whole number that an array can hold), ``float`` (any finite number),
    ``None``, ``dict``, ``list`` or ``object`` (anything); a list of one shape, which all entries have; an object of
    keys and the shapes of their values, where a key that is missing counts as null; an object ``{str: shape}``, all
    values of which have the shape; or a tuple of shapes, of which one fits.

    Examples
    --------
    >>> check({"ids": [1, 2.5]}, {"ids": [int]}, "the manifest")
    Traceback (most recent call last):
    npgemma.errors.InputError: the manifest: ids[1] should be a whole number, found 2.5
    """
    problem = _problem(value, shape)
    if problem:
        place, expected, found = problem
        where = f"{name}: {shown(place.removeprefix('.'), 80)}" if place else name
        raise InputError(f"{where} should be {expected}, found {shown(_found(found), 80)}")


def _problem(value, shape):
    """Return where in a value a shape does not fit, what should be there and what is; None if it fits."""
    if isinstance(shape, tuple):
        problems = [_problem(value, each) for each in shape]
        # That of the shape that fits furthest.
        return None if None in problems else max(problems, key=lambda problem: len(problem[0]))
    if isinstance(shape, list):
        if not isinstance(value, list):
            return "", "a list", value
        for i, each in enumerate(value):
            if problem := _problem(each, shape[0]):
                return f"[{i}]{problem[0]}", *problem[1:]
        return None
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return "", "an object", value
        for key, each in ((key, shape[str]) for key in value) if str in shape else shape.items():
            if problem := _problem(value.get(key), each):
                return f".{key}{problem[0]}", *problem[1:]
        return None
    return None if _is(value, shape) else ("", WORDS[shape], value)


def _is(value, shape):
    if shape is None or shape is object:
        return shape is object or value is None
    if shape in (int, float):
        number = isinstance(value, (int, shape)) and not isinstance(value, bool)
        return number and abs(value) < LARGEST if isinstance(value, int) else number and math.isfinite(value)
    return isinstance(value, shape)


def _found(value):
    """Return a value in words that have an end, whatever its size."""
    kind = {dict: "an object", list: "a list"}.get(type(value))
    return f"{kind} of {len(value)}" if kind else "null" if value is None else repr(value)
