"""What a probe is asked, and what it is told of the call in which it is asked."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from npgemma.probe.rewriting import Source


class Probe:
    """Stands inside the forward pass: a base class that does nothing; `npgemma.probe.probing` puts one in force."""

    def on_call(self, path: str, source: Source) -> None:
        """Be told of a call, before it runs.

        Parameters
        ----------
        path : str
            ``prefill.0/run_blocks.0/block.3``: the number counts the calls of one function within its caller.
        source : npgemma.probe.rewriting.Source
            The function that is called.
        """

    def on_bind(self, name: str, value: Any, statement: "Statement") -> Any:
        """Return what a named array is to be from here on: ``value``, or another one.

        Parameters
        ----------
        name : str
            The path of its call, a slash, and the variable. A name that a loop binds again is asked for once.
        value : array
        statement : Statement
        """
        return value

    def on_exchanged(self, name: str, value: Any, source: Source) -> Any:
        """Return what the result of an exchanged function is to be: `on_bind` saw that of the right one inside it."""
        return value


class Statement:
    """The statement that bound a named array, as it ran.

    Attributes
    ----------
    variable : str
    source : Source
        The function that bound it.
    written : ast.AST or None
        The statement; for an argument, what the caller wrote in its place; None where no followed function did.
    expression : ast.expr or None
        What was bound.
    place : Source or None
        The function in which the expression was evaluated. Of an argument this is the caller, and so are the scope, the
        path and the file.
    """

    def __init__(self, call, binding, probe):
        self.variable, self.source, self._probe = binding.variable, call.source, probe
        self._call, self.written, self.expression = call, binding.statement, binding.expression
        if binding.is_argument:
            self._call, self.written = call.caller, call.given(binding.variable)
            self.expression = self.written
        self.place = self._call.source

    @property
    def scope(self) -> Mapping[str, Any]:
        """The local variables of the call in which the expression was evaluated."""
        return self._call.scope

    @property
    def path(self) -> str:
        """That call."""
        return self._call.naming(self._probe).path[:-1]

    @property
    def file(self) -> str:
        """Where the statement is written, such as ``npgemma/gemma.py:128``; empty where it is unknown."""
        return f"{self.place.file}:{self.written.lineno}" if self.written else ""

    @property
    def formula(self) -> str:
        """The statement's text."""
        return ast.unparse(self.written) if self.written else ""

    @property
    def is_result(self) -> bool:
        """Whether the function returns this array."""
        return self.variable == self.source.result


@dataclass
class Naming:
    """How one probe names what happens in one call."""

    path: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def enter(self, function):
        """Count a call of a function; return its path."""
        self.counts[function] = self.counts.get(function, -1) + 1
        return f"{self.path}{function}.{self.counts[function]}/"


@dataclass(eq=False)
class Call:
    """An open call: of which function, from where, and its local variables so far."""

    source: Source | None = None
    caller: "Call | None" = None
    site: ast.Call | None = None
    scope: Mapping[str, Any] = field(default_factory=dict)
    namings: dict[Probe, Naming] = field(default_factory=dict)

    def naming(self, probe):
        """Return how a probe names what happens here; one that begins here begins with nothing."""
        return self.namings.setdefault(probe, Naming())

    def given(self, argument):
        """Return what the caller wrote for an argument, or None."""
        if self.site is None:
            return None
        given = dict(zip(self.source.arguments, self.site.args))
        return (given | {word.arg: word.value for word in self.site.keywords}).get(argument)
