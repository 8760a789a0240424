"""The two backends on the same weights, and their arrays compared."""

import dataclasses
import re

import conversion
from npgemma.porting.difference import difference


def twin_of(model, device="cpu"):
    """Return a model of NumPy on the torch backend, all else the same; of int8 weights, what they were rounded from."""
    from torch_ref.backend import to_torch, torch_backend

    dtype, params = model.backend.dtype, model.params
    if dtype == "int8":
        dtype = "float32"
        params, _ = conversion.read_folder(model.source, dtype)
    backend = torch_backend(dtype, device)
    return dataclasses.replace(model, params=to_torch(params, dtype, device), backend=backend)


class Comparison:
    """The differences of a whole pass from one backend's trace, ``expected`` in the order in which its arrays were
    made; the bound is the largest relative L2 error allowed. The other backend's arrays come from `npgemma.record`.
    """

    def __init__(self, expected, bound):
        self.expected, self.bound = expected, bound
        self.differences, self.unexpected = {}, []

    def sink(self, name, found):
        """Compare the other backend's array of this name; pass this to ``record(sink=...)``."""
        if name in self.expected:
            self.differences[name] = difference(self.expected[name], found)
        else:
            self.unexpected.append(name)

    @property
    def missing(self):
        """Names that only the first trace has."""
        return [name for name in self.expected if name not in self.differences]

    @property
    def past_bound(self):
        """Names of the arrays past the bound, in the order in which they were made: the first is the one to look at."""
        compared = [name for name in self.expected if name in self.differences]
        return [name for name in compared if not self.differences[name].relative_l2 <= self.bound]

    @property
    def complete(self):
        """Whether there were arrays, and all of them in both traces."""
        return bool(self.differences) and not self.missing and not self.unexpected

    @property
    def passed(self):
        """Whether every array was in both traces and within the bound."""
        return self.complete and not self.past_bound

    def places(self):
        """Return (place, number of arrays, name of the worst, its Difference) of every block and part, in the order of
        the computation.

        A place stands where its first array past the bound was made (its first array, if none is), so the first place
        past the bound is where to look for a mistake.
        """
        groups = {}
        for name in filter(self.differences.__contains__, self.expected):
            groups.setdefault(place(name), []).append(name)
        worst = {where: max(names, key=lambda n: self.differences[n].relative_l2) for where, names in groups.items()}
        order = {name: i for i, name in enumerate(self.expected)}
        past = set(self.past_bound)
        first = {where: next((name for name in names if name in past), names[0]) for where, names in groups.items()}
        places = sorted(groups, key=lambda where: order[first[where]])
        return [(where, len(groups[where]), worst[where], self.differences[worst[where]]) for where in places]

    def report(self, expected_ids, found_ids):
        """Return the outcome as plain values, beside the tokens that each backend chose."""
        places = [
            {"place": where, "arrays": count, "worst": worst}
            | dataclasses.asdict(difference)
            | {"percent_of_bound": 100 * difference.relative_l2 / self.bound}
            for where, count, worst, difference in self.places()
        ]
        return {
            "passed": self.passed and expected_ids == found_ids,
            "same_tokens": expected_ids == found_ids,
            "bound": self.bound,
            "first_past_bound": next(iter(self.past_bound), None),
            "arrays": len(self.differences),
            "missing": self.missing,
            "unexpected": self.unexpected,
            "token_ids": {"expected": expected_ids, "found": found_ids},
            "places": places,
        }


def place(name):
    """Return where an array belongs: its block, or else the part of the model; all steps of an answer together.

    Examples
    --------
    >>> place("prefill.0/run_blocks.0/block.3/attend.0/q_BTNH")
    'prefill.0/run_blocks.0/block.3'
    >>> place("step.7/unembed.0/logit_BTV"), place("step.7/ids_BT")
    ('step.*/unembed.0', 'step.*')
    """
    name = re.sub(r"^step\.\d+", "step.*", name)
    block = re.match(r".*?/block\.\d+", name)
    return block.group() if block else "/".join(name.split("/")[:-1][:2])
