"""Measuring a checkpoint on pictures it has never seen, and the model card that says what came out."""

import json
import re

import npgemma
from conversion.safetensors_file import replacing
from npgemma.params import leaves
from npgemma.progress import Progress
from tiny import scenes
from tiny.prompts import LOCATIONS, examples

SCENES = 1000
# Longer than any right answer.
MAX_TOKENS = 40
# A box is right if it shares at least this part of the area that it and the true one cover together.
LEAST_OVERLAP = 0.5
TASKS = {
    "caption": ("caption en", "the whole sentence is right"),
    "count": ("answer en how many objects", "the number is right"),
    "color": ("answer en what color is the star", "the word is right"),
    "shape": ("answer en what shape is red", "the word is right"),
    "detect": ("detect red star", "the box overlaps the true one by half or more, and the name follows"),
}


def evaluate(folder, count=SCENES):
    """Ask a checkpoint everything about held-out scenes, on the NumPy backend, and compare its answers.

    Parameters
    ----------
    folder : pathlib.Path
        A checkpoint in the hub's layout.
    count : int
        Number of scenes.

    Returns
    -------
    dict
        ``scenes``, their number, and ``tasks``: for every task the numbers ``right`` and ``asked``.
    """
    model = npgemma.load(folder)
    side = model.config.vision.image_size
    progress = Progress()
    tasks = {task: {"right": 0, "asked": 0} for task in TASKS}
    for done, seed in enumerate(scenes.HELD_OUT_SEEDS[:count], start=1):
        scene = scenes.scene(seed)
        picture = scenes.draw(scene, side)
        for task, prompt, answer in examples(scene):
            found = model.generate(picture, prompt, MAX_TOKENS).text
            tasks[task]["asked"] += 1
            tasks[task]["right"] += is_right(found, answer)
        progress.report("looking at held-out pictures", done, count)
    progress.clear()
    return {"scenes": count, "tasks": tasks}


def is_right(found, answer):
    """Compare an answer with the right one: word for word, but boxes by their overlap."""
    (found_box, found_text), (box, text) = _split(found), _split(answer)
    if found_text != text or len(found_box) != len(box):
        return False
    return not box or overlap(found_box, box) >= LEAST_OVERLAP


def overlap(one, other):
    """Return the area that two boxes share as a part of the area that they cover together.

    Parameters
    ----------
    one, other : sequence of float
        Top, left, bottom, right.

    Returns
    -------
    float
        From 0 (apart) to 1 (the same).

    Examples
    --------
    >>> overlap((0, 0, 2, 2), (0, 1, 2, 3))
    0.3333333333333333
    """
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(height, 0) * max(width, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _split(text):
    """Split an answer into the edges that it begins with and the rest."""
    match = re.match(r"(?:<loc(\d{4})>){4}", text)
    if not match:
        return (), text
    return tuple(int(edge) / (LOCATIONS - 1) for edge in re.findall(r"\d{4}", match[0])), text[match.end() :]


def table(evaluation):
    """Return an evaluation as a Markdown table."""
    lines = ["| prompt, for example | an answer counts if | right | asked | |", "|---|---|---:|---:|---:|"]
    for task, numbers in evaluation["tasks"].items():
        prompt, rule = TASKS[task]
        right, asked = numbers["right"], numbers["asked"]
        lines.append(f"| `{prompt}` | {rule} | {right} | {asked} | {right / max(asked, 1):.1%} |")
    return "\n".join(lines)


def write_card(folder, evaluation):
    """Keep an evaluation in the folder, as ``evaluation.json`` and in the model card ``README.md``.

    Parameters
    ----------
    folder : pathlib.Path
        Made by `tiny.train.train`.
    evaluation : dict
        From `evaluate`.
    """
    with replacing(folder / "evaluation.json") as file:
        file.write((json.dumps(evaluation, indent=2) + "\n").encode())
    with replacing(folder / "README.md") as file:
        file.write(card(folder, evaluation).encode())


def card(folder, evaluation):
    """Return the text of the model card."""
    model, training = npgemma.load(folder), json.loads((folder / "training.json").read_text())
    vision, text = model.config.vision, model.config.text
    parameters = sum(array.size for _, _, array in leaves(model.params))
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    return f"""# The embedded PaliGemma

A PaliGemma of {parameters:,} parameters ({megabytes:.1f} MB in float32), in the layout of the published ones and with
their architecture, small enough to come with the code. It knows one world: pictures of one to {scenes.MOST_OBJECTS}
coloured shapes on a plain light ground. Captions name the objects from left to right. About any other picture it says
something about coloured shapes.

- Shapes: {", ".join(scenes.SHAPES)}; sizes: {", ".join(scenes.SIZES)}; colours: {", ".join(scenes.COLOURS)}.
- Pictures of {vision.image_size} x {vision.image_size} pixels, in patches of {vision.patch_size}: \
{model.config.image_tokens} picture tokens.
- Vision tower: {vision.layers} layers of width {vision.width}; decoder: {text.layers} layers of width {text.width};
  {model.tokenizer.size} pieces, of which {LOCATIONS} stand for coordinates.

## Measured

On {evaluation["scenes"]} pictures it was not trained on, by the NumPy backend, each asked everything that has one right
answer; the most probable token each time:

{table(evaluation)}

`python -m tiny evaluate` measures again. The numbers are also in `evaluation.json`.

## Made

`python -m tiny train` makes every file of the checkpoint. These took {training["minutes"]} minutes
(threads: {training["threads"]}) and {training["pictures"]:,} pictures, none seen twice: first the vision tower alone,
asked of every patch what it shows, then the whole model on prompts and answers. A picture is drawn from a seed
(`scenes.py`); the seeds of the three sets never meet:

| set | seeds |
|---|---|
| training | {_seeds(scenes.TRAINING_SEEDS)} |
| validation, watched while training | {_seeds(scenes.VALIDATION_SEEDS)} |
| held out, for the table above | {_seeds(scenes.HELD_OUT_SEEDS[: evaluation["scenes"]])} |
"""


def _seeds(seeds):
    return f"{seeds[0]:,} to {seeds[-1]:,}"
