"""The objects that an answer names: their boxes, and the tokens that each is read from."""

import numpy as np

from npgemma.answer import HIGHEST_LOCATION
from npgemma.explain.attention_maps import pooling


def detections(inference, names, pack):
    """Return the objects of an answer, those whose boxes have no area included.

    Returns
    -------
    list of dict
        ``tokens``, the first and the last; ``locations`` and ``codes``; ``label``; ``box``, None without area;
        ``shares``, how much of each patch the box covers, and ``patches``, the same of each region of
        `npgemma.explain.attention_maps.attention`, packed.
    """
    size, found, shown = inference.image.size, list(inference.answer.objects), []
    for first, last, locations, codes in spans([names.names[i] for i in inference.answer.token_ids]):
        top, left, bottom, right = locations
        one = {"tokens": [first, last], "locations": locations, "codes": codes}
        one |= {"label": "", "box": None, "shares": None, "patches": None}
        # A box without area is not among the answer's objects.
        if found and top < bottom and left < right:
            drawn = found.pop(0)
            one |= {
                "label": drawn.label,
                "box": list(drawn.box),
                "shares": covered(drawn.box, size, inference.grid),
                "patches": pack.floats(covered(drawn.box, size, inference.grid // pooling(inference))),
            }
        shown.append(one)
    return shown


def covered(box, size, grid):
    """Return how much of each patch lies in a box, row by row.

    Parameters
    ----------
    box : (float, float, float, float)
        Left, top, right, bottom, in pixels of an image.
    size : (int, int)
        Columns and rows of that image.
    grid : int
        Patches in a row.

    Returns
    -------
    array (grid * grid,)
        From 0 to 1.

    Examples
    --------
    >>> covered((0, 0, 15, 10), (20, 20), 2)
    array([1. , 0.5, 0. , 0. ])
    """
    shares, edges = [], np.arange(grid + 1)
    for first, last, side in ((box[1], box[3], size[1]), (box[0], box[2], size[0])):
        inside = np.minimum(edges[1:], last * grid / side) - np.maximum(edges[:-1], first * grid / side)
        shares.append(inside.clip(0, 1))
    return np.outer(*shares).ravel()


def spans(words):
    """Return what belongs to each object: from four locations on, up to a semicolon or the end.

    Parameters
    ----------
    words : list of str
        The answer's tokens.

    Returns
    -------
    list of (int, int, list of int, list of int)
        First and last token, the four locations, the codes of the mask.

    Examples
    --------
    >>> spans(["<loc0001>", "<loc0002>", "<loc0003>", "<loc0004>", "<seg005>", " cat", " ;", "<eos>"])
    [(0, 5, [1, 2, 3, 4], [5])]
    """
    locations = [_number(word, "<loc", HIGHEST_LOCATION) for word in words]
    starts, i = [], 0
    while i + 4 <= len(words):
        if None in locations[i : i + 4]:
            i += 1
        else:
            starts.append(i)
            i += 4
    found = []
    for start, following in zip(starts, [*starts[1:], len(words)]):
        end = start + 4
        while end < following and ";" not in words[end] and words[end] != "<eos>":
            end += 1
        codes = [_number(word, "<seg") for word in words[start + 4 : end]]
        found.append((start, end - 1, locations[start : start + 4], [code for code in codes if code is not None]))
    return found


def _number(word, start, largest=float("inf")):
    """Return the number in a token such as ``<loc0012>``, or None for another token and a larger number."""
    digits = word.removeprefix(start).removesuffix(">")
    if not (word.startswith(start) and digits.isdecimal()):
        return None
    return int(digits) if int(digits) <= largest else None
