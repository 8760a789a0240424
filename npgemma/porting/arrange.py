"""A port's array brought into the layout of ours: axes split, merged, taken apart and put in another order.

The layout of a port's array is written in axis letters, one word for its whole shape. Parentheses hold letters that the
port keeps in one axis, ``BT(NH)``; a letter that is written twice stands for two neighbouring axes which are one axis
here, as ``BDTT`` for the rows and columns of patches that a convolution returns. An axis of length 1 may be missing.
One letter in a parenthesis may be none of ours, or longer than ours: ``BT(CNH)`` for queries, keys and values of one
product, of which ``take`` says which part is meant.
"""

import itertools
import math
import re
from collections.abc import Iterator

import numpy as np

from npgemma.axes import AXES
from npgemma.errors import InputError

# Letters of a layout, so that NumPy can hold as many axes.
MOST_LETTERS = 16
PART = re.compile(r"(first)|(last)|(-?\d{0,18}):(-?\d{0,18})", re.ASCII)


class Misfit(InputError):
    """An array whose shape does not fit its axes."""


def parse(axes: str) -> list[str]:
    """Return the letters of each axis of a port's array; raise `InputError` if a letter is not in `npgemma.axes.AXES`,
    a parenthesis is not closed, or a letter is written twice but for two neighbouring axes.

    Examples
    --------
    >>> parse("BT(NH)")
    ['B', 'T', 'NH']
    """
    groups = [merged or letter for merged, letter in re.findall(r"\((\w+)\)|(\w)", axes)]
    letters = "".join(group for i, group in enumerate(groups) if len(group) > 1 or groups[i - 1 : i] != [group])
    spelt = re.fullmatch(r"(\(\w+\)|\w)+", axes)
    if not spelt or len(set(letters) & set(AXES)) < len(letters) or len(letters) > MOST_LETTERS:
        raise InputError(f"axes should be letters of npgemma/axes.py, such as BT(NH), each once, found '{axes}'")
    return groups


def arrange(found, axes: str, letters: str, shape: tuple[int, ...], take: dict[str, str] | None = None) -> np.ndarray:
    """Bring a port's array with the layout ``axes`` into ours, ``letters`` of ``shape``: as a view where NumPy can make
    one.

    ``take`` gives, by letter, the part of a longer axis that is ours: ``last`` or ``first`` (as many entries as our
    axis has, or one where we have no such axis), or ``start:stop``. Raises `Misfit` if the shape does not fit.

    Examples
    --------
    Queries as a matrix of tokens by all channels of all heads, without the batch:

    >>> import numpy as np
    >>> arrange(np.zeros((5, 12)), "T(NH)", "BTNH", (1, 5, 3, 4)).shape
    (1, 5, 3, 4)
    """
    groups, ours, take = parse(axes), dict(zip(letters, shape)), take or {}
    if found.ndim != len(groups):
        raise Misfit(f"{axes} has {len(groups)} axes, but the array has the shape {found.shape}")
    names, sizes = _split(groups, found.shape, {letter: size for letter, size in ours.items() if letter not in take})
    array = found.reshape(sizes)
    for letter, part in take.items():
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
    """Return a letter and a size for each axis: merged axes are split, and neighbours with the same letter merged. In
    a merged axis one letter may have another size than ``ours``, and then has what the others leave.
    """
    names, sizes = [], []
    for group, size in zip(groups, shape):
        if names and group == names[-1]:
            sizes[-1] *= size
            continue
        known = math.prod(ours.get(letter, 1) for letter in group)
        free = [letter for letter in group if letter not in ours][:1]
        left = {letter: size // known for letter in free if size % known == 0}
        parts = [size] if len(group) == 1 else [(ours | left).get(letter, 1) for letter in group]
        if math.prod(parts) != size:
            product = " x ".join(f"{letter} = {part}" for letter, part in zip(group, parts))
            raise Misfit(f"({group}) should be {product}, {math.prod(parts)} in all, found {size}")
        names, sizes = names + list(group), sizes + parts
    return names, sizes


def _take(array, axis, part, size):
    first, last, *ends = part_of(part)
    start, stop = (int(end) if end else None for end in ends)
    if last:
        start = max(0, array.shape[axis] - size)
    chosen = slice(0, size) if first else slice(start, stop)
    return array[(slice(None),) * axis + (chosen,)]


def part_of(part: str) -> tuple[str | None, ...]:
    """Return which of four a part is: ``first``, ``last``, start and stop; `InputError` if it is written otherwise."""
    found = PART.fullmatch(part)
    if not found:
        raise InputError(f"take should say first, last or start:stop, found '{part}'")
    return found.groups()


def layouts(shape: tuple[int, ...], letters: str, ours: tuple[int, ...]) -> Iterator[str]:
    """Yield the layouts in which an array of a port's shape could hold ours (``letters`` of the shape ``ours``): every
    order of axes, neighbours merged or not. Those with as many axes of length 1 as the shape has come first.
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
