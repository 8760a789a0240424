"""Measuring a checkpoint on pictures it has never seen."""

import collections
import pathlib
import re
from dataclasses import dataclass, field

import numpy as np

import npgemma
from conversion.codebook import FILE, read_codebook
from npgemma.answer import find_objects
from npgemma.command.progress import Progress
from tiny.training import drawing, scenes
from tiny.training.prompts import examples

SCENES = 1000
# Besides, half as many of the light world, which is all that the first embedded checkpoint knew.
LIGHT_SCENES = SCENES // 2
# Answered together.
SCENES_AT_ONCE = 4
# Longer than any right answer.
MAX_TOKENS = 60
ALL = "all"
# A box is found if it shares at least this part of the area that it and the true one cover together.
LEAST_OVERLAP = 0.5
# Masks are compared on pictures of this many rows and columns.
SIDE = drawing.FINE


@dataclass
class Tally:
    """What came out for one task."""

    right: int = 0
    asked: int = 0
    overlaps: list = field(default_factory=list)  # of boxes that were found, or of masks
    extra: int = 0  # boxes that no true one goes with

    def as_dict(self):
        """Return the counts, and the mean overlap if there was any."""
        found = {"right": self.right, "asked": self.asked}
        if self.overlaps:
            found |= {"overlap": round(float(np.mean(self.overlaps)), 4), "extra": self.extra}
        return found


def evaluate(folder: pathlib.Path, count: int = SCENES) -> dict:
    """Ask a checkpoint one thing of every kind about held-out scenes, and about half as many of the light world.

    The NumPy backend answers; without a mask codebook in the folder, no mask is right. ``tasks`` says for every task
    how many answers were ``right`` of how many ``asked``. For boxes these are counted one by one, with the mean
    ``overlap`` of those found, and ``extra`` ones; for masks ``overlap`` is the mean over all. ``groups`` has the same
    tasks for every group of `groups_of`, and ``light`` is an evaluation of the light world.
    """
    model, mask_params = npgemma.load(folder), codebook_of(folder)
    tallies = _measure(model, mask_params, [scenes.scene(seed) for seed in scenes.HELD_OUT_SEEDS[:count]])
    light_scenes = [scenes.light_scene(seed) for seed in scenes.HELD_OUT_SEEDS[: count * LIGHT_SCENES // SCENES]]
    light = _measure(model, mask_params, light_scenes)
    found = {"scenes": count, "tasks": _as_dict(tallies.pop(ALL))}
    found["groups"] = {group: _as_dict(tallies[group]) for group in sorted(tallies)}
    return found | {"light": {"scenes": len(light_scenes), "tasks": _as_dict(light[ALL])}}


def groups_of(scene):
    """Return the groups that count a scene: by the background's lightness and kind, and by the picture's shape."""
    aspect = scene.aspect
    shape = "square" if aspect == 1 else "nearly square" if 0.67 < aspect < 1.5 else "wide" if aspect > 1 else "high"
    return f"background: {scene.background.lightness}", f"background: {scene.background.kind}", f"picture: {shape}"


def _as_dict(tallies):
    return {task: tallies[task].as_dict() for task in sorted(tallies)}


def _measure(model, mask_params, held_out):
    """Return the tallies of each group of scenes, and of `ALL`: for every task a `Tally`."""
    tallies, progress = collections.defaultdict(lambda: collections.defaultdict(Tally)), Progress()
    count = len(held_out)
    for start in range(0, count, SCENES_AT_ONCE):
        drawn = held_out[start : start + SCENES_AT_ONCE]
        asked = [(scene, example) for scene in drawn for example in held_out_examples(scene)]
        pictures = {id(scene): drawing.picture_for(scene, model.config.vision.image_size) for scene in drawn}
        images = [pictures[id(scene)] for scene, _ in asked]
        answers = model.generate_batch(images, [example.prompt for _, example in asked], max_new_tokens=MAX_TOKENS)
        for (scene, example), answer in zip(asked, answers):
            for group in (ALL, *groups_of(scene)):
                score(tallies[group], scene, example, answer.text, mask_params)
        progress.report("looking at held-out pictures", start, count)
    progress.clear()
    return tallies


def codebook_of(folder):
    """Return the decoder of the folder's mask codebook, or None if there is none."""
    return read_codebook(folder / FILE) if (folder / FILE).exists() else None


def held_out_examples(scene):
    """Return what a held-out scene is asked; the codes of the masks are not looked at, but the masks."""
    shown = drawing.shown(scene)
    return examples(scene, shown, [[0] * 16] * len(shown), np.random.default_rng(scene.background.grain))


def score(tallies: dict[str, Tally], scene, example, found: str, mask_params=None):
    """Compare the model's answer with the right one, and count it in its task's tally."""
    if example.task in ("detect", "detect two"):
        _score_boxes(tallies, example, found)
    elif example.task == "segment":
        _score_mask(tallies["segment"], scene, example, found, mask_params)
    else:
        task = example.task if example.answer else f"{example.task}, nothing there"
        tallies[task].asked += 1
        tallies[task].right += _words(example, found) == _words(example, example.answer)


def _words(example, answer):
    """Return what must be the same: of a caption the objects, in any order."""
    return sorted(re.split(", | and | und ", answer)) if example.task.startswith("caption") else answer


def _score_boxes(tallies, example, found):
    """Match the boxes of an answer with the true ones of the same name, nearest first."""
    truths, boxes = (find_objects(text, (1, 1)) for text in (example.answer, found))
    tally = tallies[example.task] if truths else tallies["detect, nothing there"]
    if not truths:
        tally.asked += 1
        tally.right += not boxes
        return
    pairs = [(overlap(true.box, box.box), i, k) for i, true in enumerate(truths) for k, box in enumerate(boxes)]
    pairs = [pair for pair in pairs if pair[0] >= LEAST_OVERLAP and truths[pair[1]].label == boxes[pair[2]].label]
    true_left, box_left = set(range(len(truths))), set(range(len(boxes)))
    for shared, i, k in sorted(pairs, reverse=True):
        if i in true_left and k in box_left:
            true_left.remove(i)
            box_left.remove(k)
            tally.overlaps.append(shared)
    tally.asked += len(truths)
    tally.right += len(truths) - len(true_left)
    tally.extra += len(box_left)


def _score_mask(tally, scene, example, found, mask_params):
    """Compare the first mask of an answer with what the picture shows of the object."""
    name = example.prompt.removeprefix("segment ")
    which = next(i for i, thing in enumerate(scene.objects) if thing.name == name)
    true = drawing.cover(scene, SIDE) == which + 1
    masks = [thing for thing in find_objects(found, (SIDE, SIDE), mask_params) if thing.mask is not None]
    shared = 0.0
    if masks and masks[0].label == name:
        shared = (masks[0].mask & true).sum() / (masks[0].mask | true).sum()
    tally.asked += 1
    tally.right += bool(shared >= LEAST_OVERLAP)
    tally.overlaps.append(float(shared))


def overlap(one, other):
    """Return the area that two boxes share as a part of what they cover together: from 0 (apart) to 1 (the same).

    Boxes are left, top, right, bottom.

    >>> overlap((0, 0, 2, 2), (0, 1, 2, 3))
    0.3333333333333333
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(height, 0) * max(width, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0
