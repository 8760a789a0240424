"""The terminal: nothing that is printed can send it control characters, whatever file or model it came from."""

import contextlib
import sys
from collections.abc import Iterator

from npgemma.files.foreign import escaped


class _Escaped:
    """A stream through which text goes `escaped`, lines and tabs apart; JSON of ASCII letters stays what it means."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        """Write a text."""
        self.stream.write(escaped(text, kept="\n\t"))
        return len(text)

    def __getattr__(self, name):
        return getattr(self.stream, name)


@contextlib.contextmanager
def escaped_streams() -> Iterator[None]:
    """Escape all that is printed inside a ``with`` block."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character gets its code instead of an error.
            stream.reconfigure(errors="backslashreplace")
    with contextlib.redirect_stdout(_Escaped(sys.stdout)), contextlib.redirect_stderr(_Escaped(sys.stderr)):
        yield


def unescaped(stream):
    """Return the stream below, for control characters of our own."""
    return getattr(stream, "stream", stream)
