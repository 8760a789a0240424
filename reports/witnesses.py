"""The witnesses of the tests of the tests: what sees a known mistake, and by how much.

A witness is asked about one mistake, made in one of its ways, on one checkpoint, in one dtype, and in one of the two
backends. `npgemma.porting.mistakes` makes the mistakes; `reports/mistakes.py` asks all witnesses and writes the table.
"""

import contextlib
import functools
import math
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import npgemma  # noqa: E402
import torch_ref  # noqa: E402
from npgemma.command.parity import twin_of  # noqa: E402
from npgemma.image import load_image  # noqa: E402
from npgemma.porting import given_tokens  # noqa: E402
from npgemma.porting.backends import Comparison  # noqa: E402
from npgemma.porting.bounds import BOUNDS  # noqa: E402
from npgemma.porting.diagnosis import Port, Replays  # noqa: E402
from npgemma.porting.diagnosis.hypotheses import ask  # noqa: E402
from npgemma.porting.exact import exact  # noqa: E402
from npgemma.porting.logits import Answer, diagnose  # noqa: E402
from npgemma.porting.logits.question import Question  # noqa: E402
from npgemma.porting.mistakes import MISTAKES, made  # noqa: E402
from npgemma.probe.exchange import SHARED  # noqa: E402

NUMPY, TWIN = "npgemma", "torch_ref"
PROMPT = "detect red circle ; blue square"
# What both sides take as their answer, so that a mistake cannot change what comes after: more than a window of three.
TOKENS = [7, 8, 9, 10, 11]


class RememberedQuestion:
    """The question of `diagnose --logits`, which runs each mistake once, whoever asks about it."""

    def __init__(self, question):
        self.question, self.model, self.kept = question, question.model, {}

    def logits(self, changes=None, rows=None):
        """Return the logits under a mistake."""
        key = id(changes) if changes else None, rows
        if key not in self.kept:
            self.kept[key] = self.question.logits(changes, rows)
        return self.kept[key]


class Checkpoint:
    """A checkpoint's models and their right runs, each made once.

    Parameters
    ----------
    folder : pathlib.Path or str
    """

    def __init__(self, folder):
        self.folder = folder
        self.config = self.model("float32", NUMPY).config

    @functools.cache  # noqa: B019 - a run has three checkpoints, which live as long as it does
    def model(self, dtype, side):
        """Return a backend's model; the twin's has the port's weights."""
        return npgemma.load(self.folder, dtype=dtype) if side == NUMPY else twin_of(self.model(dtype, NUMPY))

    def load(self):
        """Read the image."""
        return load_image(npgemma.example_image(), self.config.vision.image_size)

    def run(self, dtype, side):
        """Return the trace of an answer, and the logits of its tokens."""
        model = self.model(dtype, side)
        with npgemma.record() as trace:
            rows = given_tokens.run(model, self.load().pixels_BYXC, model.tokenizer.prompt(PROMPT), TOKENS)
        return trace, rows

    @functools.cache  # noqa: B019
    def right(self, dtype, side):
        """Return the trace without a mistake."""
        return self.run(dtype, side)[0]

    @functools.cache  # noqa: B019
    def reference(self, dtype):
        """Return the model for own errors: the same weights in float64."""
        return exact(self.model(dtype, NUMPY))

    @functools.cached_property
    def question(self):
        """What `diagnose --logits` asks."""
        return RememberedQuestion(Question(self.model("float32", NUMPY), self.load, PROMPT, TOKENS))


def making(id, side, way=0):
    """Make a mistake; of None none."""
    return made(id, side, way) if id else contextlib.nullcontext()


def shared(id, way=0):
    """Say whether a mistake is made in a file that serves both backends, so that it cannot be in one alone."""
    return any(name.partition(".")[0] in SHARED for name in MISTAKES[id].ways[way])


def in_arrays(checkpoint, id, way, dtype, side, logits=True):
    """Ask what sees a mistake in one side's arrays and logits.

    Parameters
    ----------
    checkpoint : Checkpoint
    id : str or None
        None asks about a right program.
    way : int
    dtype, side : str
    logits : bool
        Whether to ask `diagnose --logits` too, which runs all mistakes for the first answer.

    Returns
    -------
    dict
        ``end_to_end``: the largest relative L2 error against the other backend's right arrays, in bounds of
        `npgemma.porting.backends`; ``unequal``: the first array that cannot be near, such as ids or a mask; ``own``:
        the largest own error, in percent of its limit; ``wrong``: arrays past their limits; ``c``, ``z`` and
        ``visible``, of the projection; ``logits``: what `diagnose --logits` says.
    """
    with making(id, side, way):
        found, rows = checkpoint.run(dtype, side)
    other = checkpoint.right(dtype, TWIN if side == NUMPY else NUMPY)
    load = lambda: checkpoint.load().pixels_BYXC  # noqa: E731 - it is read again under a mistake
    replays = Replays(checkpoint.reference(dtype), load, PROMPT, Port(found, TOKENS, dtype))
    report = _end_to_end(other, found, BOUNDS[dtype]) | _own(replays) | _projection(replays, id, way)
    if logits:
        report["logits"] = _logits(checkpoint, id, rows, dtype)
    return report


def figure(value):
    """Return a number with three digits, or None for one that is not finite."""
    return float(f"{value:.3g}") if np.isfinite(value) else None


def _end_to_end(expected, found, bound):
    """Compare with the other side's right arrays, as `cli.py parity` does."""
    comparison = Comparison(expected, bound)
    for name, array in found.items():
        comparison.sink(name, array)
    apart = {name: comparison.differences[name].relative_l2 for name in expected if name in comparison.differences}
    unequal = next((name for name, distance in apart.items() if not math.isfinite(distance)), None)
    largest = max(distance for distance in apart.values() if math.isfinite(distance))
    return {
        "end_to_end": figure(largest / bound),
        "unequal": unequal or next(iter([*comparison.missing, *comparison.unexpected]), None),
    }


def _own(replays):
    places = [
        place.error / place.limit
        for name, place in replays.right.items()
        if place.error is not None and place.limit and math.isfinite(place.error) and not name.endswith("angle_BTh")
    ]
    return {"own": figure(100 * max(places)), "wrong": len(replays.wrong(replays.right))}


def _projection(replays, id, way):
    if id is None:
        return {}
    asked = ask(replays, (id, way))
    return {"c": figure(asked.c), "z": figure(asked.z), "visible": figure(asked.visible)}


def _logits(checkpoint, id, rows, dtype):
    """Return what the logits alone say: ``named``, ``one of 2``, ``seen``, ``not``, or another mistake's name."""
    pieces = checkpoint.question.model.tokenizer.size
    report = diagnose(Answer(rows[:, :pieces].astype(np.float64), TOKENS), checkpoint.question, dtype)
    names = [each["name"] for each in report["mistakes"]]
    if names:
        return "named" if names == [id] else f"as {names[0]}"
    alike = (report["says"] or "").rpartition("equally well: ")[2].split(", ")
    if id in alike:
        return f"one of {len(alike)}"
    return "not" if report["verdict"] == "right" else "seen"


def in_goldens(id, way, side, gemma2):
    """Ask the goldens, which Hugging Face made: they know a mistake that both backends have.

    Parameters
    ----------
    id : str or None
    way : int
    side : str
    gemma2 : bool
        Whether to ask those of PaliGemma 2, or those of PaliGemma.

    Returns
    -------
    float or None
        The largest difference of the logits of a pass or of an answer, in bounds; None if only
        the lengths of answers differ.
    """
    import test_golden

    backend, apart = {NUMPY: npgemma, TWIN: torch_ref}[side], []
    for variant in test_golden.VARIANTS:
        model = test_golden.load(backend, variant)
        if variant.startswith("gemma2") == gemma2:
            with making(id, side, way):
                apart += [test_golden.logits_apart(model, variant), _answers_apart(test_golden, model, variant)]
    largest = max(filter(np.isfinite, apart), default=0.0) / test_golden.LOGITS
    return figure(largest) if largest > 2 or np.isfinite(apart).all() else None


def _answers_apart(test_golden, model, variant):
    """Compare the logits of an answer; one of another length is infinitely far."""
    tokens, _ = test_golden.answer(model, variant)
    same = tokens.shape == test_golden.golden(variant)["tokens"].shape
    return test_golden.token_logits_apart(model, variant) if same else np.inf
