"""The data flow of a run as far as a port shows it: which of its arrays another was made from."""


class Flow:
    """What stands before what, among the arrays that a port shows.

    Parameters
    ----------
    entries : dict of str to npgemma.probe.manifest.Entry
        Of the reference's run.
    known : iterable of str
        The arrays that the port shows.
    """

    def __init__(self, entries, known):
        self.entries, self.before = entries, {}
        self.shown = {self.first(name) for name in known}

    def behind(self, name, among):
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
            new = [each for each in self._shown_before(todo.pop()) if each in among and each not in reached]
            reached |= dict.fromkeys(new)
            todo += new
        return [each for first in reached for each in among[first]]

    def grouped(self, names):
        """Return names of arrays by the first of the names that each array has."""
        groups = {}
        for name in names:
            groups.setdefault(self.first(name), []).append(name)
        return groups

    def _shown_before(self, name):
        """Return the nearest arrays that the port shows of those from which another was made."""
        first = self.first(name)
        if first not in self.before:
            found, reached, todo = {}, set(), list(self._inputs(first))
            while todo:
                each = todo.pop()
                if each in self.shown:
                    found[each] = None
                elif each not in reached:
                    reached.add(each)
                    todo += self._inputs(each)
            self.before[first] = list(found)
        return self.before[first]

    def first(self, name):
        """Return the first of the names that an array has."""
        entry = self.entries.get(name)
        return (entry and entry.same_as) or name

    def _inputs(self, name):
        entry = self.entries.get(self.first(name))
        return entry.inputs if entry else ()
