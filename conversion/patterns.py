r"""Patterns of module names, as peft's ``rank_pattern`` has them: what of expressions takes linear time.

peft gives a module the number of the first pattern that ``re.match(rf"(.*\.)?({pattern})$", module)`` finds; one from
outside could keep that search busy for ever. Here all matches in all names are followed at once: the bits of a number
are the places that a pattern has reached, and each of its letters moves them on.
"""

import functools
import re

import numpy as np

from npgemma.errors import InputError
from npgemma.files.foreign import shown

# A letter as a pattern writes it, and how often it may stand; or what groups letters.
LETTER = r"\\d|\\[^a-zA-Z0-9]|\.|\[(?:\w-\w|\w)+\]|[^\\.^$*+?{}\[\]|()]"
TOKEN = re.compile(rf"(?P<letter>{LETTER})(?P<many>[*+?]?)\??|\((?:\?:)?|[)|^$]", re.ASCII)
READ = r"names, '.', '\d', '[0-9]', each with '*', '+' or '?', alternatives in parentheses, '^' and '$'"
# Letters of all patterns together; one pattern for each matrix of the largest model has 30,000.
MOST = 200_000


def matches(patterns, names, where):
    """Return by pattern the names, each of one line, that it matches.

    InputError, which begins with ``where``, if a pattern holds more than is read here, or all together are too long.
    """
    letters, names, found = sum(len(pattern) + 1 for pattern in patterns), list(names), {}
    if letters > MOST:
        raise InputError(f"{where} has {letters} letters in {len(patterns)} keys, npgemma reads {MOST}: shorten it")
    codes = np.frombuffer("".join(f"{name}\n" for name in names).encode("utf-32-le"), np.uint32)
    end = codes == ord("\n")
    ends, first = _bits(end), _bits(np.r_[True, end][:-1])
    places = functools.cache(lambda letter: _bits(_stands_for(letter, codes) & ~end))
    for pattern in patterns:
        reached = _reached(pattern, places, first, ends)
        if reached is None:
            says = f"'{shown(pattern, 80)}', which is no pattern that npgemma reads: write it with {READ}"
            raise InputError(f"{where} has {says}")
        hit = np.unpackbits(np.frombuffer(reached.to_bytes(len(end) // 8 + 1, "little"), np.uint8), bitorder="little")
        found[pattern] = [names[i] for i in np.flatnonzero(hit[: len(end)][end])]
    return found


def _reached(pattern, places, first, ends):
    """Return at which ends of names a pattern arrives; None if it is no pattern that is read here."""
    # Of each open parenthesis, the whole pattern's first: where its alternatives begin, and where some have ended.
    reached = first | places(r"\.") << 1
    place, opened = 0, [(reached, 0)]
    while place < len(pattern):
        token = TOKEN.match(pattern, place)
        if token is None or (token[0] == ")" and len(opened) == 1):
            return None
        place = token.end()
        if token["letter"]:
            reached = _moved(reached, places(token["letter"]), token["many"])
        elif token[0] in "^$":
            reached &= first if token[0] == "^" else ends
        elif token[0] == "|":
            opened[-1], reached = (opened[-1][0], opened[-1][1] | reached), opened[-1][0]
        elif token[0] == ")":
            reached |= opened.pop()[1]
        else:
            opened.append((reached, 0))
    return (reached | opened[0][1]) & ends if len(opened) == 1 else None


def _moved(reached, places, many):
    """Return the places after a letter that stands at ``places``: once, or ``*``, ``+`` or ``?`` times."""
    once = (reached & places) << 1
    start = once if many in ("", "+") else reached | once
    # The carry of a sum runs through all places in a row.
    return start | (((start & places) + places) ^ places) if many in ("*", "+") else start


def _stands_for(letter, codes):
    """Return which letters a letter of a pattern stands for."""
    if letter == "." or (letter != r"\d" and letter[0] != "["):
        return codes == (codes if letter == "." else ord(letter[-1]))
    ranges = re.findall(r"(\w)(?:-(\w))?", letter.replace(r"\d", "0-9"))
    return np.any([(codes >= ord(low)) & (codes <= ord(high or low)) for low, high in ranges], axis=0)


def _bits(flags):
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")
