"""The model card: what the embedded checkpoint is, how it was made, and what was measured."""

import json
import pathlib

import npgemma
from conversion.codebook import FILE
from npgemma.files.writing import replacing
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
    "ocr": ("ocr", "the whole text, where there is one", 0.92),
    "ocr, nothing there": ("ocr", "an empty answer, where there is no text", None),
}
# Mean overlaps that should be reached.
OVERLAPS = {"detect": 0.88, "detect two": 0.88, "segment": 0.83}
# What is shown of each group of scenes.
OF_GROUPS = ("caption", "color", "count", "detect", "detect two", "segment", "ocr")
RECORD, EVALUATION, NOTES = "training.json", "evaluation.json", "training/notes.md"
# What the first embedded checkpoint, which knew the light world only, was measured to do there.
FIRST = "training/first_evaluation.json"


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


def missed(evaluation):
    """Say in a sentence which targets are missed, and by how much."""
    shares = [(task, target, evaluation["tasks"].get(task)) for task, (*_, target) in TASKS.items() if target]
    below = [
        f"{task} ({numbers['right'] / numbers['asked']:.1%}, target {target:.0%})"
        for task, target, numbers in shares
        if numbers and numbers["asked"] and numbers["right"] / numbers["asked"] < target
    ]
    below += [
        f"mean overlap in {task} ({evaluation['tasks'][task]['overlap']:.3f}, target {target:.2f})"
        for task, target in OVERLAPS.items()
        if evaluation["tasks"].get(task, {}).get("overlap", target) < target
    ]
    return f"Below target: {', '.join(below)}." if below else "All targets are reached."


def group_table(evaluation):
    """Return the share of right answers for each group of scenes as a Markdown table, with the counts."""
    lines = [f"| | {' | '.join(OF_GROUPS)} |", f"|---|{'---:|' * len(OF_GROUPS)}"]
    for group, tasks in evaluation["groups"].items():
        numbers = [tasks.get(task, {"right": 0, "asked": 0}) for task in OF_GROUPS]
        shares = [f"{n['right'] / n['asked']:.0%} of {n['asked']}" if n["asked"] else "" for n in numbers]
        lines.append(f"| {group} | {' | '.join(shares)} |")
    return "\n".join(lines)


def light_table(light, first):
    """Return the evaluation of the light world beside that of the first embedded checkpoint, as a Markdown table."""
    lines = ["| task | right | asked | | first checkpoint |", "|---|---:|---:|---:|---:|"]
    for task in TASKS:
        if task in light["tasks"]:
            now, before = light["tasks"][task], first["tasks"][task]
            shares = [f"{numbers['right'] / max(numbers['asked'], 1):.1%}" for numbers in (now, before)]
            lines.append(f"| {task} | {now['right']} | {now['asked']} | {' | '.join(shares)} |")
    overlaps = [(task, light["tasks"].get(task, {}), first["tasks"][task]) for task in OVERLAPS]
    for task, now, before in overlaps:
        if "overlap" in now:
            lines.append(f"| {task}: mean overlap | | | {now['overlap']:.3f} | {before['overlap']:.3f} |")
    return "\n".join(lines)


def write_card(folder, evaluation):
    """Keep an evaluation in the folder that `train` made, as ``evaluation.json`` and in the card ``README.md``."""
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
    first = json.loads(pathlib.Path(__file__).with_name(pathlib.Path(FIRST).name).read_text(encoding="utf-8"))
    notes = f"\n{(folder / NOTES).read_text(encoding='utf-8')}" if (folder / NOTES).exists() else ""
    return f"""# The embedded PaliGemma

A PaliGemma of {parameters:,} parameters, in the layout of the published ones and with their architecture, small enough
to come with the code ({", ".join(f"{name} {size:.2f} MB" for name, size in files.items())}). It knows one world:
pictures of up to {scenes.MOST_OBJECTS} coloured shapes, which may overlap a little, and sometimes a short word or
number, on a background of any colour. It does every task of the PaliGemma family there: captions in two languages,
questions, reading, boxes and masks. Captions name the objects from left to right; where it sees no shape, it says "no
shapes". Every other picture it takes for one of these.

- Shapes: {", ".join(scenes.SHAPES)}; sizes: {", ".join(scenes.SIZES)}; colours: {", ".join(scenes.COLOURS)}.
- Backgrounds: {", ".join(scenes.BACKGROUNDS)}, from black to white and of any hue. The colour of a shape or a text is
  at least {scenes.LEAST_CONTRAST} from that of its background, in RGB, where black and white are 442 apart.
- Pictures of any size, up to {scenes.MOST_ASPECT:.0f} times as wide as high or as high as wide, squeezed to
  {vision.image_size} x {vision.image_size} pixels. In patches of {vision.patch_size}, that makes \
{model.config.image_tokens} picture tokens.
- From its middle to its farthest point a shape measures {_span("small")} (small) or {_span("large")} (large) of the
  side of a square with the picture's area.
- Texts: up to {scenes.LONGEST_TEXT} capital letters or digits: words, numbers, and letters at random.
- Vision tower: {vision.layers} layers of width {vision.width}; decoder: {text.layers} layers of width {text.width},
  {text.query_heads} query heads of width {text.head_width} on {text.key_value_heads} key/value heads.
- Tokenizer: {model.tokenizer.size} pieces, of which 1024 stand for coordinates and 128 for parts of masks.

## Measured

On {evaluation["scenes"]} pictures it was not trained on, by the NumPy backend, each asked one thing of every kind that
fits it; the most probable token each time:

{table(evaluation)}

{overlap_table(evaluation)}

{missed(evaluation)}

By the background's lightness and kind, and by the picture's shape (clutter shows nothing that the model knows; wide and
high: one side at least 1.5 times the other):

{group_table(evaluation)}

On {evaluation["light"]["scenes"]} pictures of the light world (square, on a light background, seven colours of one
shade each), which is all that the first embedded checkpoint knew; the last column is what that one was measured
to do there:

{light_table(evaluation["light"], first)}

`python -m tiny.training evaluate` measures again. The numbers are also in `{EVALUATION}`.
{notes}
## Made

`python -m tiny.training train` makes every file of the checkpoint. These took {training["minutes"]} minutes on
{training["device"]} and {training["pictures"]:,} pictures, none seen twice: first the mask codebook, then the vision
tower alone, asked of every patch what it shows, then projector and decoder on prompts and answers; then tower and
decoder three times more.
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


def _span(size):
    return " to ".join(str(length) for length in scenes.SIZES[size])
