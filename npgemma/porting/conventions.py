"""What two right programs may do differently: count positions from another number, mask with another number."""

import numpy as np

from npgemma.porting.backends import difference
from npgemma.rope import rotate

# From here down a port's score counts as masked.
MASKED = -1e4
# How far from 0 a port may begin to count.
ORIGINS = (0, -1, 1, -2, 2)


class Gauge:
    """The conventions of a port, found once and then held against all its arrays.

    A port that counts positions from 1 rotates all queries and keys by one position more, which no score shows. So the
    first positions and the first rotated array tell the port's origin; whatever disagrees with that is a mistake.

    Parameters
    ----------
    reference : npgemma.porting.reference.Reference
    pairs : dict of str to npgemma.porting.coverage.Pair
    """

    def __init__(self, reference, pairs):
        self.entries, self.frequency_h = reference.entries, _frequencies(reference)
        fitting = [pair for pair in pairs.values() if pair.found is not None]
        positions = next((pair for pair in fitting if self._is_position(pair.name)), None)
        self.origin = 0 if positions is None else (positions.expected - positions.found).flat[0]
        rotated = next((pair for pair in fitting if self._is_rotated(pair.name)), None)
        self.turns = 0 if rotated is None else min(ORIGINS, key=lambda turns: self._error(rotated, turns))

    def undone(self, pair):
        """Return the port's array under our conventions."""
        found, gauge = pair.found, self.entries[pair.name]["gauge"] or ""
        if self._is_position(pair.name):
            return found + self.origin
        if self._is_rotated(pair.name) and self.turns:
            return self._turned(found, self.turns)
        if gauge.startswith("fill"):
            return np.where(np.isneginf(pair.expected) & (found <= MASKED), pair.expected, found)
        return found

    def _is_position(self, name):
        return name.endswith("position_BT")

    def _is_rotated(self, name):
        first = self.entries[name]["same_as"] or name
        decoder = "grouped_query_attention" in name and self.frequency_h is not None
        return decoder and first.endswith(("/rotated_BTNH", "/k_BSKH"))

    def _turned(self, found, turns):
        angle_BTh = np.broadcast_to(turns * self.frequency_h, (*found.shape[:2], found.shape[-1] // 2))
        return rotate(found.astype(np.float64), angle_BTh)

    def _error(self, pair, turns):
        return difference(pair.expected, self._turned(pair.found, turns)).relative_l2


def _frequencies(reference):
    """Return the angles of position 1, or None if the trace does not show them."""
    for name, angle_BTh in reference.arrays.items():
        if name.endswith("angles.0/angle_BTh"):
            position_BT = reference.arrays.get(name.replace("angle_BTh", "position_BT"))
            if position_BT is not None and position_BT[0, -1]:
                return angle_BTh[0, -1] / position_BT[0, -1]
    return None
