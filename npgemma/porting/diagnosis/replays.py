"""Replays of a port: the reference, in float64, on the port's own arrays, as it is and under mistakes."""

import contextlib
import dataclasses
import math

import numpy as np

from npgemma.errors import InputError
from npgemma.porting import given_tokens
from npgemma.porting.bounds import IN_FLOAT32, LEFT, SAME, kind_of, limits
from npgemma.porting.conventions import Conventions
from npgemma.porting.difference import relative_l2, same
from npgemma.porting.graph import Graph
from npgemma.porting.mistakes import MISTAKES
from npgemma.porting.mistakes.injection import counted_from
from npgemma.porting.reference import traced
from npgemma.probe.exchange import exchanged
from npgemma.probe.replay import replaying

# Differences that only positions make, however they are counted.
ORIGIN = ("position_BT", "position_BS", "angle_BTh")


@dataclasses.dataclass(frozen=True)
class Port:
    """What is known of a port."""

    arrays: dict[str, np.ndarray]  # under the names of `npgemma.record`
    token_ids: list[int]  # the answer's tokens, which the port chose or was given
    dtype: str = "float32"  # that it calculates in: a key of `npgemma.porting.bounds.LARGEST_OWN_ERROR`


@dataclasses.dataclass
class Kept:
    """Arrays of the reference that a replay went on with, since a mistake does not explain the port's."""

    groups: dict[str, list[str]]  # by the first of the names that each array has
    rounding: float = 0.0  # the sum of all their limits

    def add(self, first, name, limit):
        """Go on with one more."""
        self.groups.setdefault(first, []).append(name)
        self.rounding += limit


class Contradicted(Exception):
    """Ends a replay: the mistake is not the port's, whatever comes after."""


@dataclasses.dataclass
class Place:
    """One array in one replay."""

    computed: np.ndarray | None  # None where it was not kept
    error: float | None  # of the port's array, relative L2; None where the port does not give it
    apart: float = 0.0  # from what the right reference makes there
    limit: float = 0.0


class Replays:
    """Replays of one port on one reference.

    The ``model`` is the reference's: float64, on the NumPy backend, its weights rounded as the port's. ``load()``
    returns the pixels of the image, read anew. The ``prompt`` is a text, or its tokens where nothing is wrong with
    them. The ``reference`` is a trace of the same run, which says what is made from what; by default it is made here.
    Without ``keep`` the reference's arrays are dropped where the port is right, and mistakes cannot be asked for.
    """

    def __init__(self, model, load, prompt, port, reference=None, keep=True):
        self.model, self.load, self.prompt, self.port, self.keep = model, load, prompt, port, keep
        self.pixels, self.image, self.right = load(), None, {}
        reference = reference or traced(model, self.pixels, self._prompt_ids(), port.token_ids)
        self.entries, known = reference.entries, [name for name in port.arrays if name in reference.entries]
        if not known:
            raise InputError("the trace has no array that the reference knows: names look like prefill.0/x_BSD")
        # Angles are never judged: what is wrong with them shows in what they rotate.
        self.graph = Graph(self.entries, [name for name in known if not name.endswith("angle_BTh")])
        self.conventions = Conventions(reference, port.arrays)
        positions = model.config.image_tokens + len(self._prompt_ids()) + len(port.token_ids)
        judged = self.entries, set(known), port.dtype
        self.limits, self.in_float32 = limits(*judged, positions=positions), ()
        self.right = self.replay()
        if port.dtype == "float64" and self._in_part_float32():
            self.in_float32 = IN_FLOAT32
            self.limits = limits(*judged, IN_FLOAT32, positions)
            self.right = self.replay()
        self.before_wrong = self.graph.ancestors(self.wrong(self.right))

    def count_from(self, origin: int) -> None:
        """Let the reference count positions from another origin, which only mistakes of a port may show."""
        self.conventions.origin, self.right = np.int64(origin), {}
        self.right = self.replay()

    def _in_part_float32(self):
        """Say whether most norms, softmaxes and rotations of a port are past float64's limits."""
        past = [
            place.error > place.limit
            for name, place in self.right.items()
            if place.error is not None and name in self.entries and kind_of(self.entries[name]) in IN_FLOAT32
        ]
        return 2 * sum(past) > len(past)

    def _prompt_ids(self):
        """Return the prompt's tokens, as they are under the mistake that is injected."""
        return self.prompt if isinstance(self.prompt, list) else given_tokens.prompt_ids(self.model, self.prompt)

    def _run(self, pixels, ids, parts=("vision", "decoder")):
        """Run the reference on the port's answer and return the image tokens; skip the decoder if only vision is
        changed and these come out right.
        """
        image_BPD = given_tokens.encode(self.model, pixels) if "vision" in parts else self.image
        if "decoder" in parts or not np.array_equal(image_BPD, self.image):
            given_tokens.decode(self.model, image_BPD, ids, self.port.token_ids)
        return image_BPD

    def _contradicts(self, name, place):
        """Say whether the port is right where the mistake is far off, and nothing wrong follows that excuses it."""
        right = self.right.get(name)
        if right is None or None in (right.error, place.error) or name.endswith("angle_BTh"):
            return False
        off = right.error <= right.limit and place.error > place.limit and place.apart > 2 * place.limit
        return off and self.graph.first(name) not in self.before_wrong

    def replay(self, *injections: tuple[str, int]) -> dict[str, Place]:
        """Replay under some mistakes, each an id and a variant, as far as the port does not contradict them."""
        places, under, kept = {}, bool(injections), Kept({})

        def choose(name, computed, inside):
            variable = name.rpartition("/")[2]
            place, given = self._place(name, computed, under, kept), self.port.arrays.get(name)
            places[name] = place
            if given is None or given.shape != computed.shape:
                return computed
            far = place.apart > SAME and place.error > place.limit
            if far and inside is not None and self._error(name, inside) <= place.limit:
                # The port has the array as it is before the mistake is made.
                place.error = None
            elif far:
                kept.add(self.graph.first(name), name, self.limits[name])
            if under and self._contradicts(name, place):
                raise Contradicted
            if not self.keep and place.error <= place.limit:
                place.computed = None
            if far or variable in ORIGIN:
                return computed
            return given.astype(computed.dtype, copy=False)

        variants = [MISTAKES[id].variants[variant] for id, variant in injections]
        in_pixels = [changes for changes in variants if _only_pixels(changes)] if self._other_pixels() else []
        in_pass = [changes for changes in variants if changes not in in_pixels]
        with replaying(choose, in_pass), exchanged(counted_from(self.conventions.origin)):
            anew = any(path.startswith("image.") for changes in in_pass for path in changes)
            pixels, ids = self.load() if anew else self.pixels, self._prompt_ids()
            for changes in in_pixels:
                pixels = changes["siglip.encode"](None, lambda pixels_BYXC, *others: pixels_BYXC)(pixels, None, None)
            places["prompt"] = self._prompt_place(ids)
            given = self.port.arrays.get("prefill.0/ids_BT")
            if given is not None and given.ndim == 2 and len(given) == 1 and given.size:
                ids = given[0].astype(int).tolist()
            with contextlib.suppress(Contradicted):
                image_BPD = self._run(pixels, ids, _parts([name for changes in variants for name in changes]))
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

    def conforming(self, name: str, computed: np.ndarray) -> np.ndarray | None:
        """Return the port's array under the reference's conventions, beside what the reference computed; None if there
        is none.
        """
        given = self.port.arrays.get(name)
        if given is None or given.shape != computed.shape:
            return given
        return self.conventions.counted_alike(name, computed, given)

    def _error(self, name, computed):
        """Return how far the port's array is from one of the reference's; None if the port does not give it."""
        given = self.conforming(name, computed)
        return None if given is None else relative_l2(computed, given)

    def _place(self, name, computed, under, kept):
        """Judge an array; most are the same under a mistake as without it."""
        right = self.right.get(name) if under else None
        if right is not None and same(right.computed, computed):
            return right
        error, own = self._error(name, computed), self.limits.get(name, 0.0)
        apart = 0.0 if not under else math.inf if right is None else relative_l2(right.computed, computed)
        # Kept arrays upstream add their rounding to the limit. Finding out which of the kept ones are upstream takes
        # long, so it is left out where all of them together would not change the outcome.
        limit = own + kept.rounding
        if error is not None and (error <= limit or apart <= 2 * limit):
            limit = own + sum(self.limits[source] for source in self.graph.upstream(name, kept.groups))
        if right is not None and right.error is not None and right.error > right.limit:
            # Errors are relative to what each replay makes: one above 1 says nothing more of the port's array.
            limit = max(limit, LEFT * min(right.error, 1.0))
        return Place(computed, error, apart, limit)

    def wrong(self, places: dict[str, Place]) -> list[str]:
        """Return the names of the arrays past their limits, in the order of the data flow."""
        return [
            name
            for name, place in places.items()
            if place.error is not None and place.error > place.limit and not name.endswith("angle_BTh")
        ]


def _parts(names):
    """Return the parts of the model that have these functions; without any, all."""
    vision = ("siglip.", "image.", "paligemma.project")
    return {"vision" if name.startswith(vision) else "decoder" for name in names} or {"vision", "decoder"}


def _only_pixels(changes):
    """Say whether changes only exchange the pixels before they are encoded."""
    return set(changes) == {"siglip.encode"}
