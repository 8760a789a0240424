"""Text from outside (names in files, paths, answers) as it may be shown: without control characters, never long."""

import re

# Control characters, and format characters, which turn the direction of a line or hide in it; line and paragraph
# separators; halves of characters. The two joiners stay, without which some scripts cannot be written.
HIDDEN = re.compile(
    "[\0-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
# Letters of a message, and of one word in it where the message is longer.
MOST, WORD = 1000, 160


def escaped(text: str, kept: str = "") -> str:
    r"""Return a text with its control, bidirectional and invisible characters as JSON writes them, but for ``kept``.

    Examples
    --------
    >>> print(escaped("a \x1b[31m name"))
    a \u001b[31m name
    """
    return HIDDEN.sub(lambda found: found[0] if found[0] in kept else _code(found[0]), text)


def shown(value: object, most: int = MOST) -> str:
    """Return a value as a message, a table or a label shows it: `escaped`, and cut in the middle to about ``most``
    letters, long words first.

    Examples
    --------
    >>> shown("a tensor named " + 5000 * "x" + " is missing", 60)
    'a tensor named xxxxxxxxxxxxxxx... (5000 letters) ...xxxxxxxxxxxxxxx is missing'
    """
    text = str(value)
    if len(text) > most:
        text = re.sub(r"\S{60,}", lambda word: _cut(word[0], min(most // 2, WORD)), text)
    return _cut(escaped(_cut(text, most)), 2 * most)


def _cut(text, most):
    """Return the two ends of a long text."""
    half = most // 2
    return text if len(text) <= most + 40 else f"{text[:half]}... ({len(text)} letters) ...{text[-half:]}"


def _code(character):
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
