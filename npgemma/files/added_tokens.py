"""Added tokens: texts that stand for one id wherever they occur, whatever pieces would spell them.

A fine-tune that needs a word of its own (``<defect>``) appends it to the vocabulary with a row in the embedding table.
``tokenizer.model`` does not change then; the word is listed in ``tokenizer.json`` or ``added_tokens.json``.
"""

import re
from dataclasses import dataclass

from npgemma.errors import InputError
from npgemma.files.foreign import shown

# Hugging Face's placeholder for an image's vectors: no token of the text, so it stays plain text in a prompt.
IMAGE = "<image>"
LARGEST_ID, MOST_TOKENS = 2**24, 2**16
# Letters of a piece or an added token; cutting a text into pieces takes that many steps a letter.
LONGEST = 256
FLAGS = "single_word", "lstrip", "rstrip", "normalized"
# An added token in a JSON file, but for its id.
TOKEN = {"content": str} | dict.fromkeys(FLAGS, (bool, None))


@dataclass(frozen=True)
class AddedToken:
    """A text with an id of its own."""

    id: int
    content: str
    single_word: bool = False  # only where no letter, digit or underscore touches it
    lstrip: bool = False  # white space before it belongs to it
    rstrip: bool = False  # white space after it belongs to it
    normalized: bool = False  # it is looked for after the text has been normalised


class Matcher:
    """Finds added tokens in a text: the leftmost first, and of several there the longest."""

    def __init__(self, tokens):
        self.tokens = {token.content: token for token in tokens if token.content}
        # By first character, so that most places of a text cost one look-up.
        self.lengths = {}
        for content in self.tokens:
            self.lengths.setdefault(content[0], set()).add(len(content))
        self.lengths = {first: sorted(lengths, reverse=True) for first, lengths in self.lengths.items()}

    def split(self, text):
        """Yield the ids of added tokens and the texts between them, of which none is empty."""
        done = place = 0
        while place < len(text):
            token = self._at(text, place)
            if token is None:
                place += 1
                continue
            start, place = place, place + len(token.content)
            if token.single_word and _touched(text, start, place):
                continue
            while token.lstrip and start > done and text[start - 1].isspace():
                start -= 1
            while token.rstrip and place < len(text) and text[place].isspace():
                place += 1
            if start > done:
                yield text[done:start]
            yield token.id
            done = place
        if done < len(text):
            yield text[done:]

    def _at(self, text, place):
        for length in self.lengths.get(text[place], ()):
            token = self.tokens.get(text[place : place + length])
            if token is not None:
                return token
        return None


def _touched(text, start, stop):
    return re.search(r"\w", text[max(start - 1, 0) : start] + text[stop : stop + 1]) is not None


def read_tokens(entries, name) -> list[AddedToken]:
    """Read entries (`TOKEN` with an ``id``) of a JSON file, less the image token; InputError if one is absurd."""
    if len(entries) > MOST_TOKENS:
        raise InputError(f"'{name}' has {len(entries)} added tokens, npgemma reads {MOST_TOKENS}: add fewer")
    tokens = []
    for entry in entries:
        if len(entry["content"]) > LONGEST:
            raise InputError(
                f"'{name}' has an added token of more than {LONGEST} letters, {shown(entry['content'], 80)}"
            )
        flags = {flag: bool(entry.get(flag)) for flag in FLAGS}
        tokens.append(AddedToken(check_id(entry["id"], name), entry["content"], **flags))
    return [token for token in tokens if token.content != IMAGE]


def check_id(value, name):
    """Return a token's id from a JSON file, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST_ID:
        raise InputError(f"'{name}': a token's id should be a whole number from 0, found {value!r:.80}")
    return value
