"""The data flow of a run, as its manifest tells it: which array was made from which."""


class Graph:
    """What stands upstream and downstream of an array, as far as a port shows it.

    Parameters
    ----------
    entries : dict of str to npgemma.probe.manifest.Entry
        Of the reference's run, in the order of the data flow.
    shown : iterable of str
        The arrays that the port shows.
    """

    def __init__(self, entries, shown=()):
        self.entries, self._nearest = entries, {}
        self.order = {name: i for i, name in enumerate(entries)}
        self.shown = self.grouped(shown)

    def first(self, name):
        """Return the first of the names that an array has."""
        entry = self.entries.get(name)
        return (entry and entry.same_as) or name

    def grouped(self, names):
        """Return names of arrays by the first of the names that each array has."""
        groups = {}
        for name in names:
            groups.setdefault(self.first(name), []).append(name)
        return groups

    def nearest(self, name):
        """Return the nearest arrays upstream that the port shows, and those between that it does not show.

        Parameters
        ----------
        name : str

        Returns
        -------
        (list of str, list of str)
        """
        first = self.first(name)
        if first not in self._nearest:
            found, between, waiting = {}, {}, list(self._inputs(first))
            for each in waiting:
                if each in self.shown:
                    found[each] = None
                elif each in self.entries and each not in between:
                    between[each] = None
                    waiting += self._inputs(each)
            self._nearest[first] = list(found), sorted(between, key=self.order.get)
        return self._nearest[first]

    def made_from(self, name):
        """Return the nearest arrays that one was made from and the port shows, and those between that it does not.

        Parameters
        ----------
        name : str

        Returns
        -------
        (list of str, list of str)
            Of another name of one array: the names that it had before.
        """
        before = [each for each in self.shown.get(self.first(name), []) if self.order[each] < self.order[name]]
        if before:
            return before, []
        nearest, between = self.nearest(name)
        return sorted({each for first in nearest for each in self.shown[first]}, key=self.order.get), between

    def upstream(self, name, among):
        """Return those of some arrays from which another was made, as far as no other array of the port is between.

        Parameters
        ----------
        name : str
        among : dict of str to list of str
            From `grouped`.

        Returns
        -------
        list of str
        """
        reached, todo = {}, [name] if among else []
        while todo:
            new = [each for each in self.nearest(todo.pop())[0] if each in among and each not in reached]
            reached |= dict.fromkeys(new)
            todo += new
        return [each for first in reached for each in among[first]]

    def downstream(self, names):
        """Return all arrays that depend on some, those arrays' own later names included.

        Parameters
        ----------
        names : collection of str

        Returns
        -------
        list of str
            In the order of the data flow.
        """
        taken, reached, found = set(), set(), []
        for name in self.entries:
            first = self.first(name)
            if name in names:
                taken.add(first)
            if first in taken or first in reached or reached.intersection(self._inputs(name)):
                reached.add(first)
                found += [name] if first not in taken else []
        return found

    def _inputs(self, name):
        entry = self.entries.get(self.first(name))
        return [self.first(each) for each in entry.inputs] if entry else []
