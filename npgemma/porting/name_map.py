"""A map from a port's names and layouts to ours, read from a TOML file."""

import pathlib
import re
import tomllib
from dataclasses import dataclass, field

import numpy as np

from npgemma.axes import suffix
from npgemma.errors import InputError
from npgemma.porting.arrange import arrange, parse

SHIPPED = pathlib.Path(__file__).parent / "maps"
_PASS = r"(?:(?P<pass>prefill\.0|step\.\d+)/)?"


@dataclass(frozen=True)
class Rule:
    """How one kind of a port's arrays becomes one kind of ours.

    Parameters
    ----------
    port : str
        The port's name, with ``{i}`` for a number and ``{pass}`` for the pass. Where the name has no ``{pass}``, the
        pass may stand in front of it, ``step.0/``; without one it is the prefill.
    ours : str
        Our name, with the same words in braces.
    axes : str, optional
        The layout of the port's array (`npgemma.porting.arrange`); by default ours.
    offset, scale : float
        Our numbers are ``scale * found + offset``.
    take : dict of str to str
        The part of a longer axis.
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
        axes, last = self.axes, self.ours.rpartition("/")[2]
        if suffix(last) is None:
            raise InputError(f"the map's '{self.ours}' is no name of ours: it should end in axes, as x_BTD")
        if axes is not None:
            parse(axes)
        if "{i}" in self.ours and "{i}" not in self.port:
            raise InputError(f"the map's '{self.port}' has no {{i}}, which '{self.ours}' needs")

    def match(self, name):
        """Return our name for a port's name, or None."""
        words = re.split(r"\{(\w+)\}", self.port)
        pattern = "" if "pass" in words[1::2] else _PASS
        for literal, word in zip(words[::2], [*words[1::2], None]):
            kind = r"[^/]+" if word == "pass" else r"\d+"
            pattern += re.escape(literal) + (f"(?P<{word}>{kind})" if word else "")
        found = re.fullmatch(pattern, name)
        if not found:
            return None
        return re.sub(r"\{(\w+)\}", lambda word: _word(word[1], found[word[1]]), self.ours)

    def convert(self, found, letters, shape):
        """Return a port's array in our layout and our numbers."""
        found = arrange(found, self.axes or letters, letters, shape, self.take)
        if self.true_where is not None:
            return found == self.true_where
        if self.scale == 1 and self.offset == 0:
            return found
        return found * np.asarray(self.scale, found.dtype) + np.asarray(self.offset, found.dtype)


def _word(word, text):
    """Return what a word in braces stands for; passes that a port counts from 0 are the prefill and its steps."""
    if word != "pass":
        return text
    if text is None or text in ("prefill", "0"):
        return "prefill.0"
    return f"step.{int(text) - 1}" if text.isdigit() else text


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
    return shipped if shipped.is_file() else pathlib.Path(folder, path)


def _read(path, extending):
    """Read a map that the maps of ``extending`` extend, each of them the one before it."""
    if any(path.resolve() == each.resolve() for each in extending):
        raise InputError(
            f"the map '{path}' extends itself: leave out one 'extends' of " + ", ".join(map(str, extending))
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.toml")))
        wanted = f", which '{extending[-1]}' extends" if extending else ""
        raise InputError(f"there is no map '{path}'{wanted}: give a TOML file, or one of {names}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise InputError(f"the map '{path}' cannot be read: {problem}") from None
    base = content.pop("extends") if isinstance(content.get("extends"), str) else None
    rules = []
    for port, tables in content.items():
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise InputError(f"the map '{path}' should have [[\"{port}\"]] with double brackets above its keys")
        rules += [_rule(path, port, table) for table in tables]
    if not rules:
        raise InputError(f'the map \'{path}\' has no rule: a rule is [["PORT\'S NAME"]] and below it ours = "OUR NAME"')
    if base is None:
        return rules
    replaced = {rule.ours for rule in rules}
    inherited = _read(_located(base, path.parent), (*extending, path))
    return [rule for rule in inherited if rule.ours not in replaced] + rules


KINDS = {
    "ours": str,
    "axes": str,
    "offset": (int, float),
    "scale": (int, float),
    "take": dict,
    "true_where": (int, float),
}


def _rule(path, port, table):
    for key, value in table.items():
        if key not in KINDS:
            raise InputError(f"the map '{path}' has the key '{key}' for {port}: it should be one of {', '.join(KINDS)}")
        if not isinstance(value, KINDS[key]):
            raise InputError(f"in the map '{path}', {key} of {port} has a value of the wrong kind, {value!r}")
    if "ours" not in table:
        raise InputError(f"the map '{path}' lacks ours = ... for {port}")
    try:
        return Rule(port, **table)
    except InputError as problem:
        raise InputError(f"{problem} (in '{path}')") from None
