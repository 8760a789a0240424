"""A port's array brought into the layout of ours: axes split, merged, taken apart and put in another order.

The layout of a port's array is written in axis letters, one word for its whole shape. Parentheses hold letters that the
port keeps in one axis, ``BT(NH)``; a letter that is written twice stands for two neighbouring axes which are one axis
here, as ``BDTT`` for the rows and columns of patches that a convolution returns. An axis of length 1 may be missing.
"""

import itertools
import math
import re

from npgemma.axes import AXES
from npgemma.errors import InputError


class Misfit(InputError):
    """An array whose shape does not fit its axes."""


def parse(axes):
    """Return the letters of every axis of a port's array.

    Parameters
    ----------
    axes : str

    Returns
    -------
    list of str

    Raises
    ------
    InputError
        If a letter is none of `npgemma.axes.AXES`, or a parenthesis is not closed.

    Examples
    --------
    >>> parse("BT(NH)")
    ['B', 'T', 'NH']
    """
    groups = re.findall(r"\((\w+)\)|(\w)", axes)
    written = "".join(f"({several})" if several else one for several, one in groups)
    unknown = [letter for several, one in groups for letter in several or one if letter not in AXES]
    if written != axes or unknown or not groups:
        raise InputError(f"axes should be letters of npgemma/axes.py, such as BT(NH), found '{axes}'")
    return [several or one for several, one in groups]


def arrange(found, axes, letters, shape, take=None):
    """Bring a port's array into our layout.

    Parameters
    ----------
    found : array
        The port's.
    axes : str
        Its layout.
    letters : str
        The axes of our array, such as ``BTNH``.
    shape : tuple of int
        The shape of our array.
    take : dict of str to str, optional
        By letter, the part of a longer axis that is ours: ``last`` or ``first`` (as many entries as our axis has, or
        one where we have no such axis), or ``start:stop``.

    Returns
    -------
    array
        A view where NumPy can make one.

    Raises
    ------
    Misfit
        With the sentence that says what was expected and what was found.

    Examples
    --------
    Queries as a matrix of tokens by all channels of all heads, without the batch:

    >>> import numpy as np
    >>> arrange(np.zeros((5, 12)), "T(NH)", "BTNH", (1, 5, 3, 4)).shape
    (1, 5, 3, 4)
    """
    groups, ours = parse(axes), dict(zip(letters, shape))
    if found.ndim != len(groups):
        raise Misfit(f"{axes} has {len(groups)} axes, but the array has the shape {found.shape}")
    names, sizes = _split(groups, found.shape, ours)
    array = found.reshape(sizes)
    for letter, part in (take or {}).items():
        if letter not in names:
            raise Misfit(f"take has the letter {letter}, which the axes {axes} have not")
        array = _take(array, names.index(letter), part, ours.get(letter, 1))
    dropped = [i for i, name in enumerate(names) if name not in ours and array.shape[i] == 1]
    array = array.squeeze(tuple(dropped))
    names = [name for i, name in enumerate(names) if i not in dropped]
    missing = [letter for letter in letters if letter not in names]
    if set(names) - set(ours) or any(ours[letter] != 1 for letter in missing):
        raise Misfit(f"the axes {axes} of {found.shape} cannot become {letters} of {shape}")
    array = array.transpose([names.index(letter) for letter in letters if letter in names])
    for letter in missing:
        array = array[(slice(None),) * letters.index(letter) + (None,)]
    if array.shape != tuple(shape):
        raise Misfit(f"expected the shape {tuple(shape)} ({letters}), found {array.shape} from {found.shape} ({axes})")
    return array


def _split(groups, shape, ours):
    """Return a letter and a size for each axis, those of parentheses apart and those of equal letters together."""
    names, sizes = [], []
    for group, size in zip(groups, shape):
        if group == (names and names[-1]):
            sizes[-1] *= size
            continue
        parts = [size] if len(group) == 1 else [ours.get(letter, 1) for letter in group]
        if math.prod(parts) != size:
            said = " x ".join(f"{letter} = {part}" for letter, part in zip(group, parts))
            raise Misfit(f"({group}) should be {said}, {math.prod(parts)} in all, found {size}")
        names, sizes = names + list(group), sizes + parts
    return names, sizes


def _take(array, axis, part, size):
    start, colon, stop = part.partition(":")
    if part == "last":
        chosen = slice(max(0, array.shape[axis] - size), None)
    elif part == "first":
        chosen = slice(0, size)
    elif colon and re.fullmatch(r"-?\d*", start) and re.fullmatch(r"-?\d*", stop):
        chosen = slice(int(start) if start else None, int(stop) if stop else None)
    else:
        raise InputError(f"take should say first, last or start:stop, found '{part}'")
    return array[(slice(None),) * axis + (chosen,)]


def layouts(shape, letters, ours):
    """Yield the layouts by which an array of one shape could hold one of ours: all orders, neighbours merged or not.

    Parameters
    ----------
    shape : tuple of int
        The port's.
    letters : str
    ours : tuple of int
        Our shape.

    Yields
    ------
    str
        Those whose sizes fit; as many axes of length 1 as the shape has come first.
    """
    sizes = dict(zip(letters, ours))
    kept = "".join(letter for letter in letters if sizes[letter] != 1)
    for basis in dict.fromkeys((letters, kept) if len(shape) == len(letters) else (kept, letters)):
        for order in itertools.permutations(basis):
            for cuts in itertools.combinations(range(1, len(order)), max(0, len(shape) - 1)):
                bounds = (0, *cuts, len(order))
                groups = ["".join(order[start:stop]) for start, stop in itertools.pairwise(bounds)]
                if tuple(math.prod(sizes[letter] for letter in group) for group in groups) == tuple(shape):
                    yield "".join(f"({group})" if len(group) > 1 else group for group in groups)
