"""Replays of a port: the reference, in float64, on the port's own arrays, as it is and under mistakes."""

import dataclasses
import math

import numpy as np

from npgemma.errors import InputError
from npgemma.machinery.model import without_image_marks
from npgemma.porting import given_tokens
from npgemma.porting.bounds import IN_FLOAT32, SAME, kind_of, limits
from npgemma.porting.conventions import Conventions
from npgemma.porting.difference import relative_l2, same
from npgemma.porting.graph import Graph
from npgemma.porting.mistakes import MISTAKES
from npgemma.porting.mistakes.injection import in_decoders
from npgemma.porting.reference import traced
from npgemma.probe.exchange import exchanged
from npgemma.probe.replay import replaying

# Differences that only positions make, however they are counted.
ORIGIN = ("position_BT", "position_BS", "angle_BTh")


@dataclasses.dataclass
class Kept:
    """Arrays of the reference that a replay went on with, since a mistake explains no difference there."""

    groups: dict  # by the first of the names that each array has
    rounding: float = 0.0  # of all of them together

    def add(self, first, name, limit):
        """Go on with one more."""
        self.groups.setdefault(first, []).append(name)
        self.rounding += limit


@dataclasses.dataclass
class Place:
    """One array in one replay."""

    computed: np.ndarray | None  # None where it was not kept
    error: float | None  # of the port's array, relative L2; None where the port does not give it
    apart: float = 0.0  # from what the right reference makes there
    limit: float = 0.0


class Replays:
    """Replays of one port on one reference.

    Parameters
    ----------
    model : npgemma.Model
        The reference: float64, on the NumPy backend, its weights rounded as the port's.
    load : callable
        ``load()`` returns the pixels of the image, read anew.
    prompt : str or list of int
        Its tokens, where nothing is wrong with them.
    port : Port
    reference : npgemma.porting.reference.Reference, optional
        A trace of the same run, whose manifest tells what is made from what; by default it is made here.
    keep : bool
        Whether to keep what the reference makes where the port is right; mistakes cannot be asked for without.
    """

    def __init__(self, model, load, prompt, port, reference=None, keep=True):
        self.model, self.load, self.prompt, self.port, self.keep = model, load, prompt, port, keep
        self.pixels, self.image, self.right = load(), None, {}
        traced_anew = reference or traced(model, self.pixels, self._prompt_ids(), port.token_ids)
        self.entries, known = traced_anew.entries, [name for name in port.arrays if name in traced_anew.entries]
        if not known:
            raise InputError("the trace has no array that the reference knows: names look like prefill.0/x_BSD")
        self.graph = Graph(self.entries, known)
        self.conventions = Conventions(traced_anew, port.arrays)
        positions = model.config.image_tokens + len(self._prompt_ids()) + len(port.token_ids)
        judged = self.entries, set(known), port.dtype
        self.limits, self.in_float32 = limits(*judged, positions=positions), ()
        self.right = self.replay()
        if port.dtype == "float64" and self._in_part_float32():
            self.in_float32 = IN_FLOAT32
            self.limits = limits(*judged, IN_FLOAT32, positions)
            self.right = self.replay()

    def _in_part_float32(self):
        """Say whether most norms, softmaxes and rotations of a port of float64 are past float64's limits."""
        past = [
            place.error > place.limit
            for name, place in self.right.items()
            if place.error is not None and name in self.entries and kind_of(self.entries[name]) in IN_FLOAT32
        ]
        return 2 * sum(past) > len(past)

    def _prompt_ids(self):
        """Return the prompt's tokens as they are, whatever mistake is made meanwhile."""
        if isinstance(self.prompt, list):
            return self.prompt
        return self.model.tokenizer.prompt(without_image_marks(self.prompt))

    def _run(self, pixels, ids, parts=("vision", "decoder")):
        """Run the reference on the port's answer; of the decoder, which follows, nothing if its image is the right one.

        Returns the image tokens.
        """
        image_BPD = given_tokens.encode(self.model, pixels) if "vision" in parts else self.image
        if "decoder" in parts or not np.array_equal(image_BPD, self.image):
            given_tokens.decode(self.model, image_BPD, ids, self.port.token_ids)
        return image_BPD

    def replay(self, *injections):
        """Replay under some mistakes.

        Parameters
        ----------
        *injections : (str, int)

        Returns
        -------
        dict of str to Place
        """
        places, under, kept = {}, bool(injections), Kept({})

        def choose(name, computed, inside):
            variable = name.rpartition("/")[2]
            place, found = self._place(name, computed, under, kept), self.port.arrays.get(name)
            places[name] = place
            if found is None or found.shape != computed.shape:
                return computed
            far = place.apart > SAME and place.error > place.limit
            if far and inside is not None and self._error(name, inside) <= place.limit:
                # The port has the array as it is before the mistake is made.
                place.error = None
            elif far:
                kept.add(self.graph.first(name), name, self.limits[name])
            if not self.keep and place.error <= place.limit:
                place.computed = None
            if far or variable in ORIGIN:
                return computed
            return found.astype(computed.dtype, copy=False)

        changes = [MISTAKES[id].variants[variant] for id, variant in injections]
        before = [each for each in changes if _only_pixels(each)] if self._other_pixels() else []
        changes = [each for each in changes if each not in before]
        with replaying(choose, changes), exchanged(_counted_from(self.conventions.origin)):
            anew = any(path.startswith("image.") for each in changes for path in each)
            pixels, ids = self.load() if anew else self.pixels, self._prompt_ids()
            for each in before:
                pixels = each["siglip.encode"](None, lambda pixels_BYXC, *others: pixels_BYXC)(pixels, None, None)
            places["prompt"] = self._prompt_place(ids)
            given = self.port.arrays.get("prefill.0/ids_BT")
            if given is not None and given.ndim == 2 and len(given) == 1 and given.size:
                ids = given[0].astype(int).tolist()
            concerned = [name for each in [*before, *changes] for name in each]
            image_BPD = self._run(pixels, ids, _parts(concerned))
        if not under:
            self.image = image_BPD
        return places

    def _other_pixels(self):
        """Say whether the port encodes other pixels than the right ones."""
        place = self.right.get("encode_image.0/pixels_BYXC")
        return place is not None and place.error is not None and place.error > place.limit

    def _prompt_place(self, ids):
        """Judge the prompt's tokens, which stand in front of all arrays."""
        given, right = self.port.arrays.get("prefill.0/ids_BT"), self.right.get("prompt")
        error = None if given is None else 0.0 if np.array_equal(given, [ids]) else math.inf
        alike = right is None or np.array_equal(right.computed, [ids])
        return Place(np.array([ids]), error, 0.0 if alike else math.inf)

    def conforming(self, name, computed):
        """Return the port's array, with what is only a convention made alike; None if there is none.

        Parameters
        ----------
        name : str
        computed : array
            The reference's.

        Returns
        -------
        array or None
        """
        found = self.port.arrays.get(name)
        if found is None or found.shape != computed.shape:
            return found
        return self.conventions.counted_alike(name, computed, found)

    def _error(self, name, computed):
        """Return how far the port's array is from one of the reference's; None if the port does not give it."""
        found = self.conforming(name, computed)
        return None if found is None else relative_l2(computed, found)

    def _place(self, name, computed, under, kept):
        """Judge an array; most are the same under a mistake as without it."""
        right = self.right.get(name) if under else None
        if right is not None and same(right.computed, computed):
            return right
        error, own = self._error(name, computed), self.limits.get(name, 0.0)
        apart = 0.0 if not under else math.inf if right is None else relative_l2(right.computed, computed)
        # What was kept on the way here brings its rounding along. Where more than that decides nothing, the way, which
        # takes long to find, is not asked for.
        limit = own + kept.rounding
        if error is not None and (error <= limit or apart <= 2 * limit):
            limit = own + sum(self.limits[each] for each in self.graph.upstream(name, kept.groups))
        return Place(computed, error, apart, limit)

    def wrong(self, places):
        """Return the names of the arrays past their limits, in the order of the data flow."""
        return [
            name
            for name, place in places.items()
            if place.error is not None and place.error > place.limit and not name.endswith("angle_BTh")
        ]


def _parts(changes):
    """Return which parts of the model some changes are about; without any, all."""
    files = {"vision" if name.startswith(("siglip.", "image.", "paligemma.project")) else "decoder" for name in changes}
    return files or {"vision", "decoder"}


def _only_pixels(changes):
    """Say whether changes do no more than exchange the pixels before they are encoded."""
    return set(changes) == {"siglip.encode"}


def _counted_from(origin):
    """Return the changes that count positions from another origin."""
    return in_decoders("positions", lambda module, right: lambda *given: right(*given) + origin) if origin else {}
