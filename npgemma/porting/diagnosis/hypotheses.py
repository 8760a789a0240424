"""Ask whether a port made a mistake: the reference is replayed under it, and either explains the port or does not."""

import dataclasses
import math

import numpy as np

from npgemma.porting.bounds import SAME
from npgemma.porting.diagnosis.replays import ORIGIN
from npgemma.porting.mistakes import MISTAKES


@dataclasses.dataclass
class Hypothesis:
    """What one variant of a known mistake says of the port."""

    id: str
    variant: int
    places: list[str]  # arrays that are wrong and that it explains
    own_error: float | None  # the largest there
    explained_error: float | None  # the largest there if the reference makes the mistake too
    contradictions: list[str]  # arrays that would be otherwise if the port made the mistake
    c: float = 0.0  # c and z: its projection; 0 where contradictions have decided already
    z: float = 0.0
    visible: float = 0.0  # expected |z| if the port had this mistake; 0 if it changes nothing here, or is contradicted

    def as_json(self):
        """Return what is printed of a mistake that was named."""
        return {
            "name": self.id,
            "place": self.places[0] if self.places else MISTAKES[self.id].place,
            "own_error": self.own_error,
            "explained_error": self.explained_error,
            "c": float(self.c),
            "z": float(self.z),
        }


def ask(replays, *injections):
    """Return the hypothesis that the port made one mistake, or several at once, each given as ``(id, variant)``."""
    right, under = replays.right, replays.replay(*injections)
    explained, waiting, closed = [], [], []
    for name, place in under.items():
        if place.error is None or place.apart <= SAME or name.endswith("angle_BTh"):
            continue
        was_wrong, far = name not in right or right[name].error > right[name].limit, place.apart > 2 * place.limit
        if place.error > place.limit:
            waiting += [name] if far else []
        elif far or was_wrong:
            # Inside of a function that does something else, arrays need not be those that the port has under their
            # names; what is made of them must be.
            settled = replays.graph.upstream(name, replays.graph.grouped(waiting))
            closed += settled
            waiting = [other for other in waiting if other not in settled]
            explained += [name] if was_wrong else []
    wrong = replays.wrong(right)
    places = [name for name in wrong if name in explained or name in closed]
    [(id, variant), *_] = injections
    hypothesis = Hypothesis(
        id, variant, places,
        max((right[name].error for name in places), default=None),
        max((under[name].error for name in explained), default=None),
        waiting,
    )  # fmt: skip
    if not waiting:
        _project(replays, under, hypothesis)
    return hypothesis


def _project(replays, under, hypothesis):
    """Fill in c and z, each place weighted by its own noise."""
    along = across = 0.0
    for name, place in under.items():
        right, port = replays.right.get(name), replays.port.arrays.get(name)
        if place.apart <= SAME or place.error is None or right is None or port is None or port.dtype.kind != "f":
            continue
        if not port.shape == place.computed.shape == right.computed.shape or name.rpartition("/")[2] in ORIGIN:
            continue
        with np.errstate(invalid="ignore"):  # two masked scores
            difference = place.computed - right.computed
        finite = np.isfinite(difference) & np.isfinite(port)
        difference = np.where(finite, difference, 0.0)
        if not difference.any():
            continue
        error = np.where(finite, port - np.where(finite, right.computed, 0.0), 0.0)
        noise = (error**2).sum() / finite.sum()
        if noise:
            along += (error * difference).sum() / noise
            across += (difference**2).sum() / noise
    if across:
        hypothesis.c, hypothesis.z, hypothesis.visible = along / across, along / math.sqrt(across), math.sqrt(across)
