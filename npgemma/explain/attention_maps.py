"""Who may look at whom, and where each answer token looked."""

import numpy as np

from npgemma.answer import HIGHEST_LOCATION

# A larger mask is not shown.
MOST_TOKENS = 1200
# If all weights would take more bytes, those of neighbouring patches are added up.
MOST_BYTES = 12e6


def mask_of(calls, total):
    """Join the masks of prefill and steps to one matrix: who looks at whom in the whole sequence.

    Parameters
    ----------
    calls : list of arrays (B, T, S)
        In order: of prefill, and of each step.
    total : int
        All tokens.

    Returns
    -------
    uint8 array (total, total)
        1 where the row's token may attend to the column's.
    """
    matrix, row = np.zeros((total, total), dtype=np.uint8), 0
    for mask_BTS in calls:
        new, seen = mask_BTS.shape[1:]
        matrix[row : row + new, :seen] = mask_BTS[0]
        row += new
    return matrix


def mask(inference, whole, pack):
    """Return the mask that ran, of the decoder's first layer.

    Parameters
    ----------
    inference : Inference
    whole : dict of str to array
        The arrays ``mask_BTS`` of a run.
    pack : Pack

    Returns
    -------
    dict or None
        None where the matrix would be too large.
    """
    names = [name for name in whole if name.endswith("/run_blocks.0/block.0/mask_BTS")]
    calls = [whole[name] for name in names]
    total = sum(each.shape[1] for each in calls)
    if total > MOST_TOKENS:
        return None
    return pack.add(mask_of(calls, total))


def attention(inference, pack):
    """Return the attention weights of the positions that the answer tokens were chosen from.

    Parameters
    ----------
    inference : Inference
    pack : Pack

    Returns
    -------
    dict
        ``grid``, regions in a row of the image; and ``weights``: for each answer token an array (layers, query heads,
        regions, then text tokens so far).
    """
    rows, pool = [], pooling(inference)
    side = round(inference.patches**0.5)
    for token in range(len(inference.answer.token_ids)):
        layers = [inference.block(token, i, _WEIGHT)[0, ..., -1, :] for i in range(inference.layers)]
        # K key/value heads of G query heads each: query head n is (n // G, n % G).
        weights = np.stack([layer.reshape(-1, layer.shape[-1]) for layer in layers])
        image = weights[..., : inference.patches].reshape(*weights.shape[:2], side // pool, pool, side // pool, pool)
        regions = image.sum(axis=(3, 5)).reshape(*weights.shape[:2], -1)
        rows.append(pack.floats(np.concatenate([regions, weights[..., inference.patches :]], axis=-1)))
    return {"grid": side // pool, "pool": pool, "weights": rows}


def pooling(inference):
    """Return how many patches in a row are added up to one region, so that all weights take `MOST_BYTES` at most.

    Parameters
    ----------
    inference : Inference

    Returns
    -------
    int
    """
    side = round(inference.patches**0.5)
    heads = inference.layers * inference.model.config.text.query_heads
    each = 4 * heads * len(inference.answer.token_ids)
    fitting = (pool for pool in range(1, side) if side % pool == 0 and each * (side // pool) ** 2 <= MOST_BYTES)
    return next(fitting, side)


_WEIGHT = "grouped_query_attention.0/attend.0/weight_BKGTS"


def patches_of(box, size, grid):
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
    >>> patches_of((0, 0, 15, 10), (20, 20), 2)
    array([1. , 0.5, 0. , 0. ])
    """
    shares = []
    for first, last, side in ((box[1], box[3], size[1]), (box[0], box[2], size[0])):
        edges = np.arange(grid + 1)
        inside = np.minimum(edges[1:], last * grid / side) - np.maximum(edges[:-1], first * grid / side)
        shares.append(inside.clip(0, 1))
    return np.outer(*shares).ravel()


def objects(inference, names, pack):
    """Return the objects of an answer: boxes, and which of the answer's tokens tell of each.

    Parameters
    ----------
    inference : Inference
    names : Names
    pack : Pack

    Returns
    -------
    list of dict
    """
    answer, size = inference.answer, inference.image.size
    grid = round(inference.patches**0.5)
    regions = grid // pooling(inference)
    spans = _spans([names.names[i] for i in answer.token_ids])
    found, shown = list(answer.objects), []
    for first, last, locations, codes in spans:
        top, left, bottom, right = locations
        # A box without area is no object.
        drawn = found.pop(0) if found and top < bottom and left < right else None
        shares = patches_of(drawn.box, size, grid) if drawn else None
        shown.append(
            {
                "tokens": [first, last],
                "locations": locations,
                "codes": codes,
                "label": drawn.label if drawn else "",
                "box": list(drawn.box) if drawn else None,
                "shares": shares,
                "patches": pack.floats(patches_of(drawn.box, size, regions)) if drawn else None,
            }
        )
    return shown


def _spans(words):
    """Return first and last token, locations and codes of every object that tokens name, from four locations on."""
    locations = [_number(word, "<loc", HIGHEST_LOCATION) for word in words]
    starts, i = [], 0
    while i + 4 <= len(words):
        if None not in locations[i : i + 4]:
            starts.append(i)
            i += 4
        else:
            i += 1
    spans = []
    for start, following in zip(starts, [*starts[1:], len(words)]):
        last = start + 3
        while last + 1 < following and ";" not in words[last + 1] and words[last + 1] != "<eos>":
            last += 1
        codes = [_number(word, "<seg", None) for word in words[start + 4 : last + 1]]
        spans.append((start, last, locations[start : start + 4], [code for code in codes if code is not None]))
    return spans


def _number(word, start, largest):
    digits = word.removeprefix(start).removesuffix(">")
    if not (word.startswith(start) and digits.isdecimal()):
        return None
    return int(digits) if largest is None or int(digits) <= largest else None
