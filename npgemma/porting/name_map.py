"""A map from a port's names and layouts to ours, read from a TOML file."""

import functools
import os
import pathlib
import re
import tomllib
from dataclasses import dataclass, field

import numpy as np

from npgemma.axes import suffix
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.npz import MOST_LETTERS
from npgemma.files.reading import naming, reading
from npgemma.files.shapes import check
from npgemma.porting.arrange import arrange, parse, part_of

SHIPPED = pathlib.Path(__file__).parent / "maps"
WORD = re.compile(r"\{(\w+)\}")
_PASS = r"(?:(?P<pass>prefill\.0|step\.\d++)/)?"
# Bytes of a map, letters of a line and rules in it, and maps that extend one another.
MOST_BYTES, MOST_LINE, MOST_RULES, MOST_MAPS = 256_000, 2000, 1000, 10


@dataclass(frozen=True)
class Rule:
    """How one kind of a port's arrays becomes one kind of ours.

    Parameters
    ----------
    port : str
        The port's name, with ``{i}`` for a number (``00`` is 0) and ``{pass}`` for the pass. Where the name has no
        ``{pass}``, the pass may stand in front of it, ``step.0/``; without one it is the prefill.
    ours : str
        Our name, with the same words in braces.
    axes : str, optional
        The layout of the port's array (`npgemma.porting.arrange`); by default ours.
    offset, scale : float
        Our numbers are ``scale * found + offset``.
    take : dict of str to str
        The part of a longer axis; of longer vocabularies, which are padded, it is the first.
    true_where : float, optional
        For truth values that the port keeps as numbers: the number that means True.
    """

    port: str
    ours: str
    axes: str | None = None
    offset: float = 0
    scale: float = 1
    take: dict[str, str] = field(default_factory=dict)
    true_where: float | None = None

    def __post_init__(self):
        words = WORD.findall(self.port)
        strange = [word for word in words if words.count(word) > 1 or not word.isidentifier()]
        unknown = set(WORD.findall(self.ours)) - {*words, "pass"}
        if suffix(self.ours.rpartition("/")[2]) is None:
            raise InputError(f"the map's '{self.ours}' is no name of ours: it should end in axes, as x_BTD")
        if max(len(self.port), len(self.ours)) > MOST_LETTERS:
            raise InputError(f"the map's '{self.port}' or '{self.ours}' has more than {MOST_LETTERS} letters")
        if strange:
            raise InputError(f"the map's '{self.port}' should have words in braces, each once, found {{{strange[0]}}}")
        if unknown:
            raise InputError(f"the map's '{self.port}' has no {{{min(unknown)}}}, which '{self.ours}' needs")
        if self.axes is not None:
            parse(self.axes)
        for part in self.take.values():
            part_of(part)

    @functools.cached_property
    def _pattern(self):
        words = WORD.split(self.port)
        pattern = "" if "pass" in words[1::2] else _PASS
        for literal, word in zip(words[::2], [*words[1::2], None]):
            # All digits or none: however many numbers a name has, it is read once.
            kind = r"[^/]+" if word == "pass" else r"\d++"
            pattern += re.escape(literal) + (f"(?P<{word}>{kind})" if word else "")
        return re.compile(pattern, re.ASCII)

    def match(self, name):
        """Return our name for a port's name, or None."""
        found = self._pattern.fullmatch(name)
        return found and WORD.sub(lambda word: _word(word[1], found[word[1]]), self.ours)

    def convert(self, found, letters, shape):
        """Return a port's array in our layout and our numbers."""
        axes = self.axes or letters
        padded = {"V": "first"} if "V" in axes and "V" in letters else {}
        found = arrange(found, axes, letters, shape, padded | self.take)
        if self.true_where is not None:
            return found == self.true_where
        if self.scale == 1 and self.offset == 0:
            return found
        if found.dtype.kind != "f":
            found = found.astype(np.float64)
        return found * np.asarray(self.scale, found.dtype) + np.asarray(self.offset, found.dtype)


def _word(word, text):
    """Return what a word in braces stands for; passes that a port counts from 0 are the prefill and its steps."""
    if word != "pass":
        return text.lstrip("0") or "0"
    if text is None or text in ("prefill", "0"):
        return "prefill.0"
    return f"step.{int(text) - 1}" if text.isdecimal() else text


def read_map(path):
    """Read a name map.

    Parameters
    ----------
    path : str or os.PathLike
        A TOML file, or the name of a map that comes with the project: ``transformers``, ``gemma_cpp``. With
        ``extends = "MAP"`` as its first line it has the rules of that map too, but for those whose ``ours`` stands in
        its own.

    Returns
    -------
    list of Rule

    Raises
    ------
    InputError
        If there is no such file, it has something else than rules, or it extends itself.
    """
    return _read(_located(path), ())


def _located(path, folder=""):
    """Return the file of a map: one that comes with the project, or one that lies in ``folder``."""
    shipped = SHIPPED / f"{path}.toml"
    return shipped if os.path.isfile(shipped) else pathlib.Path(folder, path)


def _read(path, extending):
    """Read a map that the maps of ``extending`` extend, each of them the one before it."""
    names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.toml")))
    wanted = f", which '{extending[-1]}' extends" if extending else ""
    missing = f"there is no map '{path}'{wanted}: give a TOML file, or one of {names}"
    with reading(path, "a map", "write it as docs/porting.md shows", missing):
        if os.path.realpath(path) in map(os.path.realpath, extending) or len(extending) >= MOST_MAPS:
            files = ", ".join(map(str, extending))
            raise InputError(f"the map '{path}' extends itself, or nine others: leave out one 'extends' of {files}")
        if os.path.getsize(path) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
        # The parser's time grows with the square of a line's.
        if max(map(len, text.splitlines()), default=0) > MOST_LINE:
            raise ValueError(f"a line of more than {MOST_LINE} letters")
        content = tomllib.loads(text)
    base = content.pop("extends") if isinstance(content.get("extends"), str) else None
    rules = []
    for port, tables in content.items():
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise InputError(f"the map '{path}' should have [[\"{port}\"]] with double brackets above its keys")
        rules += [_rule(path, port, table) for table in tables]
    if not rules:
        raise InputError(f'the map \'{path}\' has no rule: a rule is [["PORT\'S NAME"]] and below it ours = "OUR NAME"')
    if len(rules) > MOST_RULES:
        raise InputError(f"the map '{path}' has {len(rules)} rules: {MOST_RULES} are read, so use {{i}} for numbers")
    if base is None:
        return rules
    replaced = {rule.ours for rule in rules}
    with naming(path):
        inherited = _read(_located(base, path.parent), (*extending, path))
    return [rule for rule in inherited if rule.ours not in replaced] + rules


KINDS = {"ours": str, "axes": str, "offset": float, "scale": float, "take": {str: str}, "true_where": float}


def _rule(path, port, table):
    unknown = next((key for key in table if key not in KINDS), None)
    if unknown is not None:
        raise InputError(f"the map '{path}' has the key '{unknown}' for {port}: it should be one of {', '.join(KINDS)}")
    check(table, {key: KINDS[key] for key in table}, f"the map '{path}', {shown(port, 80)}")
    if "ours" not in table:
        raise InputError(f"the map '{path}' lacks ours = ... for {port}")
    try:
        return Rule(port, **table)
    except InputError as problem:
        raise InputError(f"{problem} (in '{path}')") from None
