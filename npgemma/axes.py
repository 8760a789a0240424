"""The alphabet: an array's name ends in its axes, one letter for each.

``q_BTNH`` is an array of four axes. B is the *batch*: images with their prompts that are answered together. T is the
*token*: the model reads an image as a row of square patches and a text as a row of *pieces* (words and parts of words),
and each of them is a token. What it knows of a token is a vector, and a *channel* is one number of a vector; an image
has three, red, green and blue. In attention tokens read from each other: a token asks with a *query*, is found by its
*key*, and hands over its *value*. N is the *head*, one of several attentions side by side, and H the channel in it. The
*cache* holds keys and values of tokens that were read before.

Letters keep their meaning in the whole project, in names and in einsum formulas alike, but for the six to which `AXES`
gives two meanings (D, C, U, W, y, x). D, N, K, G, H and F have one size in SigLIP and another in Gemma. Suffixes are
not comments that can go stale: `npgemma.record` reads the names of the *forward pass*, the way from image and prompt to
the next token, while it runs, and a test compares every suffix with the array it belongs to.

These have no suffix: scalars; a plain ``x`` of any shape; weights, the numbers that were learned (``p`` holds those of
the part), whose axes ``params.py`` declares, unless an example makes small ones of its own; and arrays with an axis
that no letter fits, because it was cut short, joined with another, has length one, or grows (``whole``, ``each``,
``cos`` and ``sin``, ``growing``).

`AXES` lists the letters, to be looked up as they come; the files that use its other words explain them, and so does
``docs/glossary.md``.

Inside a function a letter has one size, but for S where a token is added: in the cache, and at each step of
``generate``. At a call the same axis may get another letter:

===================================================  ============  ============
call                                                 caller says   callee says
===================================================  ============  ============
``paligemma.encode_image`` calls ``siglip.encode``   P, E          T, D
``paligemma.prefill`` calls ``gemma.run_blocks``     S             T
``paligemma.logits`` calls ``gemma.run_blocks``      S             T
``paligemma.logits`` calls ``gemma.unembed``         S             T
``grouped_query_attention`` calls ``rope.rotate``    K (of keys)   N
``siglip.self_attention`` calls ``attend``           T (of keys)   S
``mask.sliding_window`` calls ``positions``          S             T
``decode_masks`` calls ``residual_block``            U, W          Y, X
===================================================  ============  ============

Four words are used throughout. The *reference* is this package, PaliGemma in NumPy; its *twin* is ``torch_ref``, the
same functions in PyTorch; a *checkpoint* is a folder with a model's weights, sizes and pieces, and the *embedded
checkpoint* the small PaliGemma in ``tiny/``, which comes with the project. A *port* is always another program.

The letters are those of big_vision (``big_vision/models/ppp/gemma.py``), the code of the model's authors, plus what the
other parts need.

*Next:* ``config.py``. *Skip on a first reading:* the table of calls, `suffix` and `sizes`.
"""

from npgemma.config import Config

AXES = {
    "B": "batch: one image with its prompt",
    "T": "tokens of this call (the queries); those of the vision tower are patches",
    "S": "tokens that can be seen (the keys): the cached ones and those of this call",
    "D": "model width: the channels of the residual stream; in the mask codebook, of a code's vector",
    "N": "query heads",
    "K": "key/value heads",
    "G": "query heads that share one key/value head: N = K G",
    "H": "head width: channels of one head",
    "h": "half the head width: one rotation each",
    "F": "hidden width of the MLP",
    "V": "rows of the vocabulary, the list of all tokens",
    "L": "layers (cache buffers only)",
    "P": "image tokens, where the towers meet",
    "E": "vision width, where the towers meet",
    "I": "images of one prompt, where it has several",
    "Y": "rows of an image, top to bottom",
    "X": "columns of an image, left to right",
    "C": "channels of an image: red, green, blue; in a convolution, the channels that go in",
    "O": "channels that come out of a convolution",
    "y": "rows inside one patch, or of a convolution's kernel",
    "x": "columns inside one patch, or of a convolution's kernel",
    "U": "rows of patches in an image; of codes in a mask, and of the finer grids made of them",
    "W": "columns of patches in an image; of codes in a mask, and of the finer grids made of them",
    "M": "codes of one mask, in reading order",
    "Q": "codes in the codebook",
    "R": "ranks: tokens of the vocabulary, from the most probable down",
}


def suffix(name: str) -> str | None:
    """Return the axis letters that end a variable's name, or None if it has none.

    Parameters
    ----------
    name : str
        A variable's name, such as ``"q_BTNH"``.

    Returns
    -------
    str or None
        ``"BTNH"``; None where the name has no suffix or one that is not made of axis letters.

    Examples
    --------
    >>> suffix("q_BTNH"), suffix("token_ids"), suffix("x")
    ('BTNH', None, None)
    """
    stem, separator, letters = name.rpartition("_")
    if not (stem and separator and letters) or not letters[0].isupper():
        return None
    return letters if all(letter in AXES for letter in letters) else None


def sizes(config: Config) -> dict[str, dict[str, int]]:
    """Return the size of every letter that a configuration fixes, tower by tower.

    Parameters
    ----------
    config : npgemma.config.Config

    Returns
    -------
    dict of str to dict of str to int
        Keyed by the names of the three parts of the parameter tree: ``"vision"``, ``"projector"``, ``"text"``. In the
        vision tower ``T`` is fixed too: it is the number of patches.
    """
    vision, text = config.vision, config.text
    return {
        "vision": {
            "T": config.image_tokens,
            "D": vision.width,
            "N": vision.heads,
            "K": vision.heads,
            "G": 1,
            "H": vision.head_width,
            "F": vision.mlp_width,
            "Y": vision.image_size,
            "X": vision.image_size,
            "C": 3,
            "y": vision.patch_size,
            "x": vision.patch_size,
        },
        "projector": {"P": config.image_tokens, "E": vision.width, "D": text.width},
        "text": {
            "D": text.width,
            "N": text.query_heads,
            "K": text.key_value_heads,
            "G": text.query_heads // text.key_value_heads,
            "H": text.head_width,
            "h": text.head_width // 2,
            "F": text.mlp_width,
            "V": text.vocabulary,
            "L": text.layers,
        },
    }
