"""The data flow of a run, as its manifest gives it: which array was made from which."""

from collections.abc import Container, Iterable

from npgemma.probe.manifest import Entry


class Graph:
    """What is upstream and downstream of an array, as far as a port shows it; entries are in the order of the data
    flow.
    """

    def __init__(self, entries: dict[str, Entry], shown: Iterable[str] = ()):
        self.entries: dict[str, Entry] = entries
        self._nearest: dict[str, tuple[list[str], list[str]]] = {}
        self.order = {name: i for i, name in enumerate(entries)}
        self.shown = self.grouped(shown)

    def first(self, name: str) -> str:
        """Return the first of the names that an array has."""
        entry = self.entries.get(name)
        return (entry and entry.same_as) or name

    def grouped(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return names of arrays by the first of the names that each array has."""
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(self.first(name), []).append(name)
        return groups

    def nearest(self, name: str) -> tuple[list[str], list[str]]:
        """Return the first names of the nearest arrays upstream that the port shows, and of those between that it does
        not show.
        """
        first = self.first(name)
        if first not in self._nearest:
            shown: dict[str, None] = {}  # a set that keeps its order
            between, waiting = set(), list(self._inputs(first))
            for source in waiting:
                if source in self.shown:
                    shown[source] = None
                elif source in self.entries and source not in between:
                    between.add(source)
                    waiting += self._inputs(source)
            self._nearest[first] = list(shown), sorted(between, key=self.order.__getitem__)
        return self._nearest[first]

    def made_from(self, name: str) -> tuple[list[str], list[str]]:
        """Return the nearest arrays upstream and those between, as `nearest` does, but each under all names that the
        port shows; if the array has earlier names there, these are what it was made from.
        """
        earlier = [other for other in self.shown.get(self.first(name), []) if self.order[other] < self.order[name]]
        if earlier:
            return earlier, []
        nearest, between = self.nearest(name)
        return sorted({name for first in nearest for name in self.shown[first]}, key=self.order.__getitem__), between

    def upstream(self, name: str, among: dict[str, list[str]]) -> list[str]:
        """Return those arrays of ``among`` (from `grouped`) that are upstream of one, with no shown array outside of
        ``among`` between.
        """
        reached: list[str] = []
        waiting = [name] if among else []
        while waiting:
            new = [first for first in self.nearest(waiting.pop())[0] if first in among and first not in reached]
            reached += new
            waiting += new
        return [name for first in reached for name in among[first]]

    def ancestors(self, names: Iterable[str]) -> set[str]:
        """Return the first names of some arrays and of all that they depend on."""
        reached = {self.first(name) for name in names}
        for name in reversed(self.entries):
            if name in reached:
                reached.update(self._inputs(name))
        return reached

    def downstream(self, names: Container[str]) -> list[str]:
        """Return all arrays that depend on some, in the order of the data flow; later names of these arrays are left
        out.
        """
        taken: set[str] = set()
        reached: set[str] = set()
        downstream = []
        for name in self.entries:
            first = self.first(name)
            if name in names:
                taken.add(first)
            if first in taken or first in reached or reached.intersection(self._inputs(name)):
                reached.add(first)
                downstream += [name] if first not in taken else []
        return downstream

    def _inputs(self, name):
        entry = self.entries.get(self.first(name))
        return [self.first(source) for source in entry.inputs] if entry else []
