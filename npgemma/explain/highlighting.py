"""Code as the page shows it: each line in words that are keywords, strings, comments, or names of arrays."""

import io
import keyword
import tokenize

from npgemma.axes import suffix

# Kinds of words; the page's script counts on their order.
PLAIN, ARRAY, KEYWORD, STRING, COMMENT = range(5)


def highlighted(line):
    """Split a line of code into words, each with its kind.

    Parameters
    ----------
    line : str

    Returns
    -------
    list of [str, int]
        Joined, the words are the line.

    Examples
    --------
    >>> highlighted("return q_BTNH  # rotated")
    [['return', 2], [' ', 0], ['q_BTNH', 1], ['  ', 0], ['# rotated', 4]]
    """
    found, end = [], 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(line).readline):
            kind = _kind(token)
            if kind is None or token.start[0] > 1:
                continue
            _extend(found, line[end : token.start[1]], PLAIN)
            _extend(found, token.string, kind)
            end = token.end[1]
    except (tokenize.TokenError, IndentationError):
        pass  # a line of a longer statement: what was read of it stays
    _extend(found, line[end:], PLAIN)
    return found


def _kind(token):
    """Return the kind of a token, or None for one without text in the line."""
    if token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
        return None
    if token.type == tokenize.NAME and suffix(token.string):
        return ARRAY
    if token.type == tokenize.NAME and keyword.iskeyword(token.string):
        return KEYWORD
    return {tokenize.STRING: STRING, tokenize.COMMENT: COMMENT}.get(token.type, PLAIN)


def _extend(found, text, kind):
    """Append a word; plain words that follow each other become one."""
    if text and found and found[-1][1] == kind == PLAIN:
        found[-1][0] += text
    elif text:
        found.append([text, kind])
