"""What two right programs may do differently: count positions from another number, mask with another number, store
probabilities in place of logits.
"""

import itertools

import numpy as np

from npgemma.porting.bounds import ALIKE, MASKED
from npgemma.porting.difference import relative_l2
from npgemma.porting.reference import Reference
from npgemma.rope import rotate

# How far a sum of probabilities in a narrow dtype may be from 1.
ONE = 0.02
# How far from 0 a port may begin to count.
ORIGINS = (0, 1, -1, 2, -2)


class Conventions:
    """The conventions of a port, found once and then held against all its arrays.

    A port that counts positions from 1 rotates all queries and keys by one position more, which no score shows. So the
    first positions and the first rotated array show from where the port counts (``origin``) and by how many positions
    more it rotates (``turns``); whatever disagrees with that is a mistake. Where the port shows neither, the origin is
    ``hidden``. The port's arrays, ``found``, are under our names and in our layouts.
    """

    def __init__(self, reference: Reference, found: dict[str, np.ndarray]):
        self.entries, self.frequency_h = reference.entries, _frequencies(reference)
        # Not those of a step, which follow the prompt's length.
        pairs = {
            name: (reference.arrays[name], array)
            for name, array in found.items()
            if name in reference.arrays and array.size and not name.startswith("step.")
        }
        positions = (pair for name, pair in pairs.items() if is_position(name))
        rotated = (pair for name, pair in pairs.items() if self._is_rotated(name) and pair[0].shape == pair[1].shape)
        self.turns, self.hidden = 0, True
        for ours, theirs in itertools.islice(rotated, 1):
            self.hidden = False
            self.turns = min((self._error(ours, theirs, turns), i, turns) for i, turns in enumerate(ORIGINS))[2]
        self.origin = np.int64(self.turns)  # an array's, for Python's own does not fit every port's
        for ours, theirs in itertools.islice(positions, 1):
            self.hidden, offset = False, float(theirs.flat[0]) - float(ours.flat[0])
            self.origin = np.int64(offset if abs(offset) < 2**31 else 0)

    def undone(self, name: str, expected: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return a port's array under our conventions."""
        if self._is_rotated(name) and self.turns:
            return self._turned(found, -self.turns)
        return found - self.origin if is_position(name) else self.filled_alike(name, expected, found)

    def counted_alike(self, name: str, expected: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return a port's array as `undone` does, where the reference counts positions from the port's origin."""
        if name.endswith("positions.0/position_BT"):  # as they are before they are counted from elsewhere
            return found - self.origin
        return self.filled_alike(name, expected, found)

    def filled_alike(self, name: str, expected: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return a port's scores with our fill where both are masked, and its logits; any other array as it is."""
        entry = self.entries.get(name)  # a mistake may make arrays that the reference has not
        if entry and (entry.gauge or "").startswith("fill"):
            return np.where(np.isneginf(expected) & (found <= MASKED), expected, found)
        return logits_of(expected, found) if stored_as(name, found) else found

    def _is_rotated(self, name):
        first = self.entries[name].same_as or name
        decoder = "grouped_query_attention" in name and self.frequency_h is not None
        halves = decoder and self.entries[name].shape[-1] == 2 * self.frequency_h.size
        return halves and first.endswith(("/rotated_BTNH", "/k_BSKH"))

    def _turned(self, found, turns):
        angle_BTh = np.broadcast_to(turns * self.frequency_h, (*found.shape[:2], found.shape[-1] // 2))
        return rotate(found.astype(np.float64), angle_BTh)

    def _error(self, expected, found, turns):
        return relative_l2(expected, self._turned(found, -turns))


def stored_as(name: str, found: np.ndarray) -> str | None:
    """Return what a port stores in place of its logits, ``softmax`` or ``log-softmax``: what adds up to 1, as logits
    do not; None if it stores them.
    """
    if not name.endswith(("/logit_BV", "/logit_BTV", "logits")) or not np.isfinite(found).all():
        return None
    logs = {"softmax": found, "log-softmax": np.exp(np.minimum(found, 1), dtype=np.float64)}
    return next((kind for kind, p in logs.items() if (p > 0).all() and (abs(p.sum(-1) - 1) < ONE).all()), None)


def logits_of(expected, found):
    """Return the logits behind `stored_as`, up to a sum that a softmax leaves out: as the expected ones have it."""
    if expected.shape != found.shape or relative_l2(expected, found) <= ALIKE:
        return found
    log = np.log(found) if (found > 0).all() else found
    return log + (expected - log).mean(-1, keepdims=True)


def is_position(name):
    """Say whether an array holds the positions of tokens."""
    return name.endswith("position_BT")


def _frequencies(reference):
    """Return the angles of position 1; None if the trace does not show them."""
    for name, angle_BTh in reference.arrays.items():
        if name.endswith("angles.0/angle_BTh"):
            position_BT = reference.arrays.get(name.replace("angle_BTh", "position_BT"))
            if position_BT is not None and position_BT[0, -1]:
                return angle_BTh[0, -1] / position_BT[0, -1]
    return None
