"""How far two runs of one model are apart, and how far they may be.

The bounds of the whole project stand here, each with the measurement it comes from.
"""

import dataclasses
import re
from dataclasses import dataclass

import numpy as np

# The largest relative L2 error of any named array of a pass, between the two backends. Rounding of a right program
# grows with depth; a mistake is far above (tests/test_parity.py makes some). Real weights have larger activations than
# random ones, so there is some room.
BOUNDS = {
    # At three layers the largest is about 1e-14, varying with processor and BLAS (last run: reports/parity.json).
    "float64": 1e-13,
    # About 1.6e-6 at three layers; 2.8e-6 at the published size of 27 and 18 layers.
    "float32": 1e-5,
    # The port calculates in float32 on the twin's matrices: about 3e-2.
    "bfloat16": 4e-2,
    # The port on rounded weights against the twin on the original ones: what int8 costs, not a measure of rightness.
    # About 5e-2 of the embedded model.
    "int8": 1e-1,
}
# On CUDA other kernels sum in other orders. Not measured yet: no device was at hand.
DEVICE_FACTOR = {"cpu": 1, "cuda": 4}


# Entries compared at a time.
PIECE = 2**16


@dataclass(frozen=True)
class Difference:
    """How far an array is from the one expected."""

    relative_l2: float  # |found - expected| / |expected|: how much is wrong
    norm_ratio: float  # |found| / |expected|: 1 unless a scale is wrong, which a cosine would not show
    largest: float  # largest difference over the largest expected entry: is it everywhere or in one place


def difference(expected, found):
    """Compare two arrays of the same name.

    Parameters
    ----------
    expected, found : arrays
        Numbers are compared by their distance; entries that are infinite in both, as masked scores are, count as
        equal. Whole numbers and truth values must be equal.

    Returns
    -------
    Difference
        All infinite where shapes differ, or one side holds NaN or infinities that the other does not.
    """
    different = Difference(np.inf, np.inf, np.inf)
    if expected.shape != found.shape:
        return different
    if expected.dtype.kind != "f":
        return Difference(0.0, 1.0, 0.0) if np.array_equal(expected, found) else different
    # Piece by piece, so that what is made on the way stays in the processor's cache.
    squares, highest, flat = np.zeros(3), np.zeros(2), (expected.reshape(-1), found.reshape(-1))
    for start in range(0, expected.size, PIECE):
        one, other = (array[start : start + PIECE].astype(np.float64) for array in flat)
        finite = np.isfinite(one)
        if not finite.all():
            if not np.array_equal(one[~finite], other[~finite]):
                return different
            one, other = one[finite], other[finite]
        if not np.isfinite(other).all():
            return different
        error = other - one
        # Not a product of vectors: for these BLAS wakes its threads, which takes longer than to add up a piece.
        squares += [np.square(values).sum() for values in (one, other, error)]
        highest = np.maximum(highest, [np.abs(values).max(initial=0) for values in (one, error)])
    norm, found_norm, error_norm = np.sqrt(squares).tolist()
    if error_norm == 0:
        return Difference(0.0, 1.0, 0.0)
    # An expected array of nothing but zeros leaves nothing to relate to.
    norm, largest = norm or 1.0, float(highest[0]) or 1.0
    return Difference(error_norm / norm, found_norm / norm, float(highest[1]) / largest)


class Comparison:
    """Collects the differences of a whole pass, array by array, as they come from `npgemma.record`.

    Parameters
    ----------
    expected : dict of str to array
        One backend's trace, in the order in which its arrays were made.
    bound : float
        The largest relative L2 error allowed.
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
        """Return the worst array of every block and part, in the order of the computation.

        A place stands where its first array past the bound was made (its first array, if none is), so the first place
        past the bound is where to look for a mistake.

        Returns
        -------
        list of (place, number of arrays, name of the worst, its Difference)
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
        """Return the outcome as plain values.

        Parameters
        ----------
        expected_ids, found_ids : list of int
            The tokens that each backend chose.

        Returns
        -------
        dict
        """
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
