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
    letters = sum(len(pattern) + 1 for pattern in patterns)
    if letters > MOST:
        raise InputError(f"{where} has {letters} letters in {len(patterns)} keys, npgemma reads {MOST}: shorten it")
    names = _Names(names)
    try:
        return {pattern: names.matched(pattern) for pattern in patterns}
    except ValueError as pattern:
        raise InputError(
            f"{where} has '{shown(pattern, 80)}', which is no pattern that npgemma reads: write it with {READ}"
        ) from None


class _Names:
    """Names as one text, a line each."""

    def __init__(self, names):
        self.names = list(names)
        self.codes = np.frombuffer("".join(f"{name}\n" for name in self.names).encode("utf-32-le"), np.uint32)
        self.is_end = self.codes == ord("\n")
        self.ends, self.firsts = _bits(self.is_end), _bits(np.r_[True, self.is_end][:-1])
        self.places = functools.cache(lambda letter: _bits(self._are(letter) & ~self.is_end))

    def matched(self, pattern):
        """Return the names that a pattern matches."""
        # Of each open parenthesis, the whole pattern's first: where its alternatives begin, and where some have ended.
        place, opened = 0, [(self.firsts | self.places(r"\.") << 1, 0)]
        reached = opened[0][0]
        while place < len(pattern):
            token = TOKEN.match(pattern, place)
            if token is None or (token[0] == ")" and len(opened) == 1):
                raise ValueError(pattern)
            place = token.end()
            if token["letter"]:
                reached = _moved(reached, self.places(token["letter"]), token["many"])
            elif token[0] in "^$":
                reached &= self.firsts if token[0] == "^" else self.ends
            elif token[0] == "|":
                opened[-1], reached = (opened[-1][0], opened[-1][1] | reached), opened[-1][0]
            elif token[0] == ")":
                reached |= opened.pop()[1]
            else:
                opened.append((reached, 0))
        if len(opened) > 1:
            raise ValueError(pattern)
        reached = (reached | opened[0][1]) & self.ends
        found = np.frombuffer(reached.to_bytes(len(self.codes) // 8 + 1, "little"), np.uint8)
        found = np.unpackbits(found, bitorder="little")[: len(self.codes)][self.is_end]
        return [self.names[i] for i in np.flatnonzero(found)]

    def _are(self, letter):
        """Return which letters of the names a letter of a pattern stands for."""
        if letter == ".":
            return ~self.is_end
        if letter != r"\d" and letter[0] != "[":
            return self.codes == ord(letter[-1])
        ranges = re.findall(r"(\w)(?:-(\w))?", "0-9" if letter == r"\d" else letter)
        return np.any([(self.codes >= ord(a)) & (self.codes <= ord(b or a)) for a, b in ranges], axis=0)


def _moved(reached, places, many):
    """Return the places after a letter that stands at ``places``: once, or ``*``, ``+`` or ``?`` times."""
    once = (reached & places) << 1
    if many in ("", "?"):
        return once | reached if many else once
    start = reached if many == "*" else once
    # The carry of a sum runs through all places in a row.
    return start | (((start & places) + places) ^ places)


def _bits(flags):
    """Return flags as the bits of one number."""
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")
