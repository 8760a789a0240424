"""The model card: what the embedded checkpoint is, how it was made, and what was measured."""

import json

import npgemma
from conversion.codebook import FILE
from npgemma.files import replacing
from npgemma.params import leaves
from tiny.training import scenes

# Task, an example of its prompt, what counts, and the part that should be right.
TASKS = {
    "caption": ("caption en", "every object named rightly, in any order", 0.95),
    "caption in German": ("caption de", "likewise", 0.95),
    "color": ("answer en what color is the star", "the word", 0.98),
    "shape": ("answer en what shape is red", "the word", 0.98),
    "position": ("answer en is the red star above or below the blue cross", "the word", 0.98),
    "yes or no": ("answer en is there a red star", "the word", 0.98),
    "count": ("answer en how many stars", "the number", 0.97),
    "detect": ("detect red star", "boxes found: name right, overlap with the true box one half or more", 0.97),
    "detect two": ("detect red star ; blue cross", "likewise", 0.97),
    "detect, nothing there": ("detect red star", "no box, where there is no such object", None),
    "segment": ("segment red star", "masks that overlap the true one by half or more", None),
    "ocr": ("ocr", "the whole text, where there is one", 0.9),
    "ocr, nothing there": ("ocr", "an empty answer, where there is no text", None),
}
# Mean overlaps that should be reached.
OVERLAPS = {"detect": 0.85, "detect two": 0.85, "segment": 0.8}
RECORD, EVALUATION, NOTES = "training.json", "evaluation.json", "training/notes.md"


def table(evaluation):
    """Return an evaluation as a Markdown table."""
    lines = ["| prompt, for example | what counts | right | asked | | target |", "|---|---|---:|---:|---:|---:|"]
    for task, (prompt, rule, target) in TASKS.items():
        if task in evaluation["tasks"]:
            numbers = evaluation["tasks"][task]
            aim = "" if target is None else f"{target:.0%}"
            share = f"{numbers['right'] / max(numbers['asked'], 1):.1%}"
            lines.append(f"| `{prompt}` | {rule} | {numbers['right']} | {numbers['asked']} | {share} | {aim} |")
    return "\n".join(lines)


def overlap_table(evaluation):
    """Return the mean overlaps of an evaluation as a Markdown table."""
    lines = ["| task | mean overlap (intersection over union) | target | boxes that no object goes with |"]
    lines.append("|---|---:|---:|---:|")
    for task, target in OVERLAPS.items():
        numbers = evaluation["tasks"].get(task, {})
        if "overlap" in numbers:
            what = f"{task}, of all masks" if task == "segment" else f"{task}, of the boxes found"
            extra = "" if task == "segment" else numbers["extra"]
            lines.append(f"| {what} | {numbers['overlap']:.3f} | {target:.2f} | {extra} |")
    return "\n".join(lines)


def write_card(folder, evaluation):
    """Keep an evaluation in the folder, as ``evaluation.json`` and in the model card ``README.md``.

    Parameters
    ----------
    folder : pathlib.Path
        Made by `tiny.training.train.train`.
    evaluation : dict
        From `tiny.training.evaluate.evaluate`.
    """
    with replacing(folder / EVALUATION) as file:
        file.write((json.dumps(evaluation, indent=2) + "\n").encode())
    with replacing(folder / "README.md") as file:
        file.write(card(folder, evaluation).encode())


def card(folder, evaluation):
    """Return the text of the model card; what only a person can say of it stands in ``training/notes.md``."""
    model, training = npgemma.load(folder), json.loads((folder / RECORD).read_text())
    vision, text = model.config.vision, model.config.text
    parameters = sum(array.size for _, _, array in leaves(model.params))
    files = {name: (folder / name).stat().st_size / 1e6 for name in ("model.safetensors", "tokenizer.model", FILE)}
    notes = f"\n{(folder / NOTES).read_text(encoding='utf-8')}" if (folder / NOTES).exists() else ""
    return f"""# The embedded PaliGemma

A PaliGemma of {parameters:,} parameters, in the layout of the published ones and with their architecture, small enough
to come with the code ({", ".join(f"{name} {size:.2f} MB" for name, size in files.items())}). It knows one world:
pictures of one to {scenes.MOST_OBJECTS} coloured shapes, which may overlap a little, and sometimes a short word or
number, on light ground: plain, shaded or noisy. It does every task of the PaliGemma family there: captions in two
languages, questions, reading, boxes and masks. Captions name the objects from left to right. About any other picture
it says something about coloured shapes.

- Shapes: {", ".join(scenes.SHAPES)}; sizes: {", ".join(scenes.SIZES)}; colours: {", ".join(scenes.COLOURS)}.
- Texts: up to {scenes.LONGEST_TEXT} capital letters or digits: words, numbers, and letters at random.
- Pictures of {vision.image_size} x {vision.image_size} pixels, in patches of {vision.patch_size}: \
{model.config.image_tokens} picture tokens.
- Vision tower: {vision.layers} layers of width {vision.width}; decoder: {text.layers} layers of width {text.width};
  {model.tokenizer.size} pieces, of which 1024 stand for coordinates and 128 for parts of masks.

## Measured

On {evaluation["scenes"]} pictures it was not trained on, by the NumPy backend, each asked one thing of every kind that
fits it; the most probable token each time:

{table(evaluation)}

{overlap_table(evaluation)}

`python -m tiny.training evaluate` measures again. The numbers are also in `{EVALUATION}`.
{notes}
## Made

`python -m tiny.training train` makes every file of the checkpoint. These took {training["minutes"]} minutes on
{training["device"]} and {training["pictures"]:,} pictures, none seen twice: first the mask codebook, then the vision
tower alone, asked of every patch what it shows, then projector and decoder on prompts and answers.
`training_log.jsonl` has loss and accuracy on the way, `training.png` draws them. A picture is drawn from a seed
(`scenes.py`); the seeds of the three sets never meet:

| set | seeds |
|---|---|
| training | {_seeds(scenes.TRAINING_SEEDS)} |
| validation, watched while training | {_seeds(scenes.VALIDATION_SEEDS)} |
| held out, for the tables above | {_seeds(scenes.HELD_OUT_SEEDS[: evaluation["scenes"]])} |
"""


def _seeds(seeds):
    return f"{seeds[0]:,} to {seeds[-1]:,}"
