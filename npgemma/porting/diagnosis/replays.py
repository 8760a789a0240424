"""Replays of a port: the reference, in float64, on the port's own arrays, as it is and under mistakes."""

import dataclasses
import math

import numpy as np

from npgemma import generate, paligemma
from npgemma.errors import InputError
from npgemma.fast.blocks import whole_arrays
from npgemma.machinery.model import without_image_marks
from npgemma.porting.bounds import IN_FLOAT32, kind_of, limits
from npgemma.porting.diagnosis.distance import distance, same
from npgemma.porting.diagnosis.flow import Flow
from npgemma.porting.mistakes import MISTAKES
from npgemma.porting.mistakes.injection import in_decoders
from npgemma.probe.exchange import exchanged
from npgemma.probe.manifest import Manifest
from npgemma.probe.recording import record
from npgemma.probe.replay import replaying

# Differences that only positions make, however they are counted.
ORIGIN = ("position_BT", "position_BS", "angle_BTh")
# Below this, two calculations in float64 are the same one.
SAME = 1e-11
# A masked score is any number below this.
FILL = -1e30


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

    computed: np.ndarray
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
    """

    def __init__(self, model, load, prompt, port):
        self.model, self.load, self.prompt, self.port = model, load, prompt, port
        self.found = {name: _wide(array) for name, array in port.arrays.items()}
        self.manifest, self.image, self.right = Manifest(model.params), None, {}
        self.pixels = load()
        with record(only="", watch=self.manifest.watch):
            self._run(self.pixels, self._prompt_ids())
        known = [name for name in self.found if name in self.manifest.entries]
        if not known:
            raise InputError("the trace has no array that the reference knows: names look like prefill.0/x_BSD")
        self.flow = Flow(self.manifest.entries, known)
        positions = model.config.image_tokens + len(self._prompt_ids()) + len(port.token_ids)
        judged = self.manifest.entries, set(known), port.dtype
        self.limits = limits(*judged, positions=positions)
        self.right = self._origin()
        self.in_float32 = IN_FLOAT32 if port.dtype == "float64" and self._in_part_float32() else ()
        if self.in_float32:
            self.limits = limits(*judged, self.in_float32, positions)
            self.right = self._origin()

    def _in_part_float32(self):
        """Say whether most norms, softmaxes and rotations of a port of float64 are past float64's limits."""
        entries = self.manifest.entries
        past = [
            place.error > place.limit
            for name, place in self.right.items()
            if place.error is not None and name in entries and kind_of(entries[name]) in IN_FLOAT32
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
        config, rest = dataclasses.replace(self.model.config, eos_tokens=()), iter(self.port.token_ids)
        image_BPD = self.image
        if "vision" in parts:
            encode = paligemma.encode_image if pixels.ndim == 4 else paligemma.encode_images
            image_BPD = encode(pixels.astype(np.float64), self.model.params, config)
        if "decoder" in parts or not np.array_equal(image_BPD, self.image):
            ids_BT, given = np.array([ids]), len(self.port.token_ids)
            prompt = ids_BT, ids_BT == ids_BT, self.model.params, config
            steps = generate.generate(
                image_BPD, *prompt, lambda logit_BV: np.array([next(rest)]), given, step=paligemma.step
            )
            for _ in steps:
                pass
        return image_BPD

    def _origin(self):
        """Replay the right reference, with positions counted from where the port counts them."""
        given = self.found.get("prefill.0/run_blocks.0/positions.0/position_BT")
        origins = [int(given.min())] if given is not None else [0, 1]
        replays = []
        for self.origin in origins:
            replays.append((len(self.wrong(right := self.replay())), self.origin, right))
        _, self.origin, right = min(replays, key=lambda each: each[0])
        return right

    def replay(self, *ids_and_ways):
        """Replay under some mistakes.

        Parameters
        ----------
        *ids_and_ways : (str, int)

        Returns
        -------
        dict of str to Place
        """
        places, under, kept = {}, bool(ids_and_ways), Kept({})

        def choose(name, computed, inside):
            variable = name.rpartition("/")[2]
            place, found = self._place(name, computed, under, kept), self.found.get(name)
            places[name] = place
            if found is None or found.shape != computed.shape:
                return computed
            far = place.apart > SAME and place.error > place.limit
            if far and inside is not None and distance(inside, self.conforming(name, inside)) <= place.limit:
                # The port has the array as it is before the mistake is made.
                place.error = None
            elif far:
                kept.add(self.flow.first(name), name, self.limits[name])
            if far or variable in ORIGIN:
                return computed
            return found.astype(computed.dtype, copy=False)

        ways = [MISTAKES[id].ways[way] for id, way in ids_and_ways]
        if self._other_pixels():
            before, ways = [way for way in ways if _only_pixels(way)], [way for way in ways if not _only_pixels(way)]
        else:
            before = []
        with whole_arrays(), replaying(choose, ways), exchanged(_counted_from(self.origin)):
            anew = any(path.startswith("image.") for way in ways for path in way)
            pixels, ids = self.load() if anew else self.pixels, self._prompt_ids()
            for changes in before:
                pixels = changes["siglip.encode"](None, lambda pixels_BYXC, *others: pixels_BYXC)(pixels, None, None)
            places["prompt"] = self._prompt_place(ids)
            given = self.found.get("prefill.0/ids_BT")
            if given is not None and given.ndim == 2 and len(given) == 1 and given.size:
                ids = given[0].astype(int).tolist()
            concerned = [name for way in [*before, *ways] for name in way]
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
        given, right = self.found.get("prefill.0/ids_BT"), self.right.get("prompt")
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
        found = self.found.get(name)
        if found is None or found.shape != computed.shape:
            return found
        if name.endswith("masked_BKGTS"):
            return np.where(np.isneginf(computed) & (found < FILL), -math.inf, found)
        if name.endswith("positions.0/position_BT"):  # those of angles.0 have the origin on both sides
            return found - self.origin
        return found

    def _place(self, name, computed, under, kept):
        """Judge an array; most are the same under a mistake as without it."""
        right = self.right.get(name) if under else None
        if right is not None and same(right.computed, computed):
            return right
        found, own = self.conforming(name, computed), self.limits.get(name, 0.0)
        error = None if found is None else distance(computed, found)
        apart = 0.0 if not under else math.inf if right is None else distance(right.computed, computed)
        # What was kept on the way here brings its rounding along. Where more than that decides nothing, the way, which
        # takes long to find, is not asked for.
        limit = own + kept.rounding
        if error is not None and (error <= limit or apart <= 2 * limit):
            limit = own + sum(self.limits[each] for each in self.flow.behind(name, kept.groups))
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


def _wide(array):
    return array.astype(np.float64) if array.dtype.kind == "f" else array
