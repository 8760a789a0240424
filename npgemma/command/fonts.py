"""Fonts for labels: Pillow's own where it has the letters, otherwise one of the system's."""

import functools
import os
import pathlib
import sys
from collections.abc import Iterable

from PIL import ImageFont

from npgemma.files.foreign import shown
from npgemma.files.reading import reading

# Where systems keep fonts.
FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.fonts",
    "~/.local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    os.path.join(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"),
)
ENDINGS = (".ttf", ".otf", ".ttc")
# Tried first, by how their names begin: plain upright fonts with many scripts.
PREFERRED = ("dejavusans.", "notosans-regular", "arialuni", "arial.", "segoeui.", "helvetica", "notosans")
# The height at which letters are looked for.
HEIGHT = 20


def font_for(text, size, path=None):
    """Return a font, ``size`` pixels high, that has every letter of a text, or as many as any font, and the letters
    that it lacks. The font file ``path`` is tried before all others; raises InputError if it is not a font.
    """
    lacks = missing_letters(_opened(None, HEIGHT) if path is None else open_font(path), text)
    best = _opened(path, size)
    for file in _system_fonts() if lacks else ():
        try:
            font, others = _opened(file, size), missing_letters(_opened(file, HEIGHT), text)
        # Damaged font files, and bitmap fonts that have no such size.
        except (OSError, ValueError):
            continue
        if len(others) < len(lacks):
            best, lacks = font, others
        if not lacks:
            break
    return best, lacks


def open_font(path):
    """Open a font file that a user named; raise InputError if it is not a font."""
    advice = "--font should name a font file such as DejaVuSans.ttf"
    with reading(path, "a font", advice, f"no font at '{path}': {advice}"):
        font = _opened(path, HEIGHT)
        missing_letters(font, "x")
        return font


@functools.cache
def _opened(path, size):
    """Open a font file, or Pillow's own font."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


def missing_letters(font, text):
    """Return the letters of a text that a font lacks.

    A font draws what it lacks as it draws a code that is no letter, mostly as a crossed box.

    Examples
    --------
    >>> from PIL import ImageFont
    >>> missing_letters(ImageFont.load_default(20), "gross")
    ''
    """
    nothing = _drawn(font, "\U0010ffff")
    letters = sorted({letter for letter in text if not letter.isspace()})
    return "".join(letter for letter in letters if _drawn(font, letter) == nothing)


@functools.lru_cache(100_000)
def _drawn(font, letter):
    mask = font.getmask(letter)
    return mask.size, hash(bytes(mask))


@functools.cache
def _system_fonts():
    """Return the system's font files, the preferred ones first."""
    files = []
    for folder in FOLDERS:
        for parent, _, names in os.walk(os.path.expanduser(folder)):
            files += [os.path.join(parent, name) for name in names if name.lower().endswith(ENDINGS)]

    def rank(path):
        name = pathlib.PurePath(path).name.lower()
        places = [place for place, start in enumerate(PREFERRED) if name.startswith(start)]
        return min(places, default=len(PREFERRED)), name

    return sorted(files, key=rank)


def note_missing(labels: Iterable[str], size: int, path: str | None = None) -> None:
    """Print on stderr the labels for which `font_for` finds no font with all letters."""
    lacking = {label: lacks for label in dict.fromkeys(labels) if (lacks := font_for(label, size, path)[1])}
    if lacking:
        print(
            f"note: no font found here has the letters '{shown(''.join(sorted({*''.join(lacking.values())})), 80)}' of "
            f"'{shown('; '.join(lacking), 80)}', which are drawn as other signs: name a font that has them with --font",
            file=sys.stderr,
        )
