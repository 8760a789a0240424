"""Training: the mask codebook, then in turn the vision tower on pictures alone and the decoder on answers.

A later round goes on from what those before it have reached, as the learning rate rises and falls once more. Every so
often all that is needed to go on is saved; a training that was stopped goes on where it was, and on a processor ends
with the same weights (on CUDA not tried). A phase is a function of its seeds, and of what the phases before it have
reached.
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import pathlib
import sys
import time

import numpy as np
import torch

import conversion
from conversion.codebook import FILE as CODEBOOK_FILE
from conversion.hugging_face import write_tokenizer_files
from npgemma.files.writing import replacing
from npgemma.params import leaves, map_leaves
from npgemma.tokenizer import Tokenizer
from tiny.training import drawing, language, scenes, tower
from tiny.training.batches import Batches, load
from tiny.training.card import RECORD
from tiny.training.codebook import Codebook
from tiny.training.plot import plot
from tiny.training.prompts import TASKS
from tiny.training.start import initial_params, name_what_is_seen, prepare

SEED = 0


@dataclasses.dataclass(frozen=True)
class Phase:
    """One part of the training."""

    name: str  # begins with what is trained: "codebook", "tower" or "model"
    steps: int
    pictures: int  # in each step
    rate: float  # the highest learning rate of AdamW
    again: bool = False  # goes on from an earlier phase of its kind: edges are asked for as closely as at its end
    page_every: int = 3  # of the tower: one picture in so many is a page of text
    page_aspects: tuple[float, float] | None = None  # of the tower: as `tiny.training.scenes.page` takes them
    text_part: float = scenes.TEXT_PART  # of the model: how often a picture has a text
    asked_more: dict = dataclasses.field(default_factory=dict)  # of the model: tasks asked otherwise than in `TASKS`

    @property
    def kind(self):
        """What is trained."""
        return self.name.split()[0]


# In the later rounds the tower reads more pages of text, and what is still missed is asked more often.
PHASES = (
    Phase("codebook", 1500, 32, 2e-3),
    Phase("tower", 6000, 32, 2e-3),
    Phase("model", 4800, 16, 1e-3),
    Phase("tower again", 3500, 32, 1.5e-3, again=True, page_every=2),
    Phase("model again", 3400, 16, 1e-3, again=True,
          asked_more={"position": 2.5, "yes or no": 2.0, "ocr": 3.5, "detect": 2.5, "detect two": 3.5}),
    Phase("tower once more", 2700, 32, 1.5e-3, again=True, page_every=2, page_aspects=(0, 1)),
    Phase("model once more", 3400, 16, 7e-4, again=True,
          asked_more={"position": 4.0, "yes or no": 2.0, "ocr": 5.0, "detect": 2.5, "detect two": 8.0}),
    Phase("tower a fourth time", 4200, 32, 1.5e-3, again=True, page_every=2, page_aspects=(-1, 1)),
    Phase("model a fourth time", 6500, 16, 1e-3, again=True, text_part=0.6,
          asked_more={"position": 4.0, "yes or no": 2.0, "ocr": 6.0, "detect": 2.5, "detect two": 7.0}),
)  # fmt: skip
# The rate of Muon's steps, as a multiple of AdamW's.
MUON_RATE = 10
REPORT_EVERY, SAVE_EVERY = 50, 500
VALIDATE_EVERY, VALIDATION_SCENES = 500, 150
STATE, LOG, PLOT = "training_state.pt", "training_log.jsonl", "training.png"


class Run:
    """A training in an existing folder: what it has reached, and its log. What an earlier run has saved is taken up."""

    def __init__(self, folder):
        self.folder, self.device = folder, torch.device("cuda" if torch.cuda.is_available() else "cpu")
        path = folder / STATE
        saved = torch.load(path, map_location=self.device, weights_only=True) if path.exists() else {}
        self.phases, self.best = saved.get("phases", {}), saved.get("best", 0.0)
        # What was logged after the last save will be logged again.
        (folder / LOG).write_text(saved.get("log", ""))

    def save(self, name, phase):
        """Keep what a phase has reached."""
        self.phases[name] = phase
        with replacing(self.folder / STATE) as file:
            torch.save({"phases": self.phases, "best": self.best, "log": (self.folder / LOG).read_text()}, file)

    def seconds(self):
        """Return how long it has taken so far."""
        return sum(phase["seconds"] for phase in self.phases.values())

    def log(self, entry):
        """Add a line to the log, and show it."""
        with open(self.folder / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        print(*(f"{name} {_shown(value)}" for name, value in entry.items()), sep="  ", file=sys.stderr, flush=True)


class Weights(torch.nn.Module):
    """A tree of weights to train: matrices as matrices, though the model sees their heads apart.

    What begins with ``fixed`` is kept as it is.
    """

    def __init__(self, tree, fixed="nothing"):
        super().__init__()
        self.tree, self.flat = tree, torch.nn.ParameterList()
        for name, axes, array in leaves(tree):
            flat = array.reshape(_rows(axes, array), -1) if _is_matrix(name) else array
            # A copy: what an earlier phase has reached is saved again with each later one, and must not change.
            self.flat.append(torch.nn.Parameter(flat.clone(), requires_grad=not name.startswith(fixed)))

    def params(self):
        """Return the tree, its arrays views of what is trained."""
        flat = iter(self.flat)
        return map_leaves(lambda array: next(flat).view(array.shape), self.tree)

    def matrices(self):
        """Return the matrices of the layers: not the tables of tokens and places, no biases and no gains."""
        named = zip(self.flat, leaves(self.tree))
        return [flat for flat, (name, _, _) in named if _is_matrix(name) and flat.requires_grad]


def _is_matrix(name):
    return name.rpartition(".")[2] in ("q", "k", "v", "o", "up", "gate", "down", "linear", "patch_embedding")


def _rows(axes, array):
    """Return over how many channels a weight sums: its rows as a matrix."""
    return len(array) if axes[0] == "D" else array.numel() // array.shape[-1]


def optimizers(module, rate):
    """Return the optimizers of a module, with their highest rates.

    Matrices of layers are trained by Muon, which takes steps of equal size in all directions; the rest by AdamW. In a
    trial the decoder's loss after 300 steps of both was that after 500 steps of AdamW alone.
    """
    matrices = [matrix for part in module.modules() if isinstance(part, Weights) for matrix in part.matrices()]
    of_muon = {id(matrix) for matrix in matrices}
    rest = [x for x in module.parameters() if x.requires_grad and id(x) not in of_muon]
    adam = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    muon = [torch.optim.Muon(matrices, lr=MUON_RATE * rate, weight_decay=0.01)] if matrices else []
    return [(adam, rate), *((optimizer, MUON_RATE * rate) for optimizer in muon)]


def fit(run: Run, phase: Phase, module: torch.nn.Module, batches: Batches, loss_of, check=None):
    """Train to the end of a phase, from where it was: the rate rises shortly, then falls to zero.

    The module is what is trained, and what else must be kept. ``loss_of`` takes a batch and the part of the training
    that is done; it returns the loss and a dict of what came out right. ``check`` is called with the step now and then,
    and at the end.
    """
    steps, start, trained = len(batches), 0, [x for x in module.parameters() if x.requires_grad]
    chosen = optimizers(module, phase.rate)
    reached = run.phases.get(phase.name)
    if reached:
        start = reached["step"]
        module.load_state_dict(reached["module"])
        for (optimizer, _), state in zip(chosen, reached["optimizers"]):
            optimizer.load_state_dict(state)
    stream = iter(load(batches, start, _workers()))
    if reached:
        # Last: to begin a stream takes a random number.
        torch.set_rng_state(reached["randomness"].cpu())
    begin, before = time.perf_counter(), reached["seconds"] if reached else 0.0
    for step, batch in enumerate(stream, start=start + 1):
        for optimizer, highest in chosen:
            optimizer.param_groups[0]["lr"] = highest * min(step / 200, (1 + math.cos(math.pi * step / steps)) / 2)
            optimizer.zero_grad()
        loss, right = loss_of({key: array.to(run.device) for key, array in batch.items()}, step / steps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer, _ in chosen:
            optimizer.step()
        if step % REPORT_EVERY == 0 or step == steps:
            found = {key: round(float(value), 4) for key, value in right.items()}
            left = (time.perf_counter() - begin) / (step - start) * (steps - step) / 60
            run.log({"phase": phase.name, "step": step, "of": steps, "loss": round(loss.item(), 4), **found})
            print(f"    {left:.1f} minutes left of this phase", file=sys.stderr, flush=True)
        if check and (step % VALIDATE_EVERY == 0 or step == steps):
            check(step)
        if step % SAVE_EVERY == 0 or step == steps:
            run.save(
                phase.name,
                {
                    "module": module.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer, _ in chosen],
                    "step": step,
                    "seconds": before + time.perf_counter() - begin,
                    "randomness": torch.get_rng_state(),
                },
            )


def train(folder: pathlib.Path):
    """Make the checkpoint: tokenizer, mask codebook, weights, and a record of how they came about.

    The best weights so far are saved in the folder, which exists, several times on the way.
    """
    run, config = Run(folder), prepare(folder)
    # No picture is seen twice.
    ends = list(itertools.accumulate((phase.steps * phase.pictures for phase in PHASES), initial=0))
    seeds = [scenes.TRAINING_SEEDS[start:end] for start, end in itertools.pairwise(ends)]
    torch.manual_seed(SEED)
    codebook = teach_codebook(run, PHASES[0], seeds[0])
    params = map_leaves(lambda x: x.to(run.device), initial_params(config, SEED))
    lesson = tower.Lesson(config.vision).to(run.device)
    for phase, own_seeds in zip(PHASES[1:], seeds[1:]):
        if phase.kind == "tower":
            params = teach_tower(run, phase, params, config, codebook, own_seeds, lesson)
        else:
            params = teach_model(run, phase, params, config, codebook, own_seeds)
        if phase.name == "tower":
            name_what_is_seen(params, lesson, Tokenizer(folder / "tokenizer.model"))
    cores = torch.get_num_threads()
    device = torch.cuda.get_device_name() if run.device.type == "cuda" else f"{cores} processor core{'s' * (cores > 1)}"
    record = {"minutes": round(run.seconds() / 60, 1), "device": device, "pictures": ends[-1]}
    with replacing(folder / RECORD) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
    write_tokenizer_files(folder)
    draw_log(folder)
    (folder / STATE).unlink()


def draw_log(folder):
    """Draw the training's log, where matplotlib is installed."""
    try:
        with replacing(folder / PLOT) as file:
            plot(folder / LOG, file)
    except ModuleNotFoundError as missing:
        if missing.name != "matplotlib":
            raise
        print("note: no plot of the training without matplotlib: pip install '.[figures]'", file=sys.stderr)


def teach_codebook(run, phase, seeds):
    """Train the mask codebook and write it; return it, on the CPU."""
    codebook = Codebook().to(run.device)
    batches = Batches(seeds, phase.pictures, masks_of)
    fit(run, phase, codebook, batches, lambda batch, part: codebook.loss(batch["masks"]))
    arrays = {name: array.cpu().numpy() for name, array in codebook.state_dict().items()}
    with replacing(run.folder / CODEBOOK_FILE) as file:
        np.savez(file, **arrays)
    return codebook.cpu().eval()


def masks_of(drawn):
    """Return the masks of all objects of some scenes."""
    return {"masks": np.stack([mask for scene in drawn for _, mask in drawing.shown(scene)])}


def teach_tower(run, phase, params, config, codebook, seeds, lesson):
    """Train the vision tower, and the lesson's layers, to say what every patch shows; return the weights."""
    weights = Weights(params.vision)
    make = functools.partial(tower.batch, config=config.vision, codebook=codebook)
    scene_of = functools.partial(tower.scene_of, page_every=phase.page_every, page_aspects=phase.page_aspects)
    batches = Batches(seeds, phase.pictures, make, scene_of)
    fit(run, phase, torch.nn.ModuleList([lesson, weights]), batches, _narrow(run, lesson, weights, phase.again))
    return dataclasses.replace(params, vision=map_leaves(torch.detach, weights.params()))


def teach_model(run, phase, params, config, codebook, seeds):
    """Train projector and decoder to answer; return the weights.

    On the way the folder keeps what does best on validation scenes, in the end the last. The tower is kept as it is:
    trained on with the decoder, it drifts away from what it has learned (`notes.md`).
    """
    weights = Weights(params, fixed="vision.")
    lesson = language.Lesson(config, run.folder, codebook, SEED, TASKS | phase.asked_more)
    drawn = [scenes.scene(seed) for seed in scenes.VALIDATION_SEEDS[:VALIDATION_SCENES]]
    validation, tasks = lesson.validation(drawn)
    validation = {name: torch.as_tensor(array).to(run.device) for name, array in validation.items()}

    def check(step):
        params = map_leaves(torch.detach, weights.params())
        found = lesson.accuracy(validation, tasks, params)
        run.log({"phase": "validation", "step": step, **{task: round(part, 4) for task, part in found.items()}})
        # The end counts without comparison: so few scenes cannot tell it from the best step before (`notes.md`).
        if sum(found.values()) > run.best or step == phase.steps:
            run.best = sum(found.values())
            conversion.save(run.folder, map_leaves(lambda x: x.cpu().numpy(), params), config)

    scene_of = functools.partial(scenes.scene, text_part=phase.text_part)
    batches = Batches(seeds, phase.pictures, lesson.batch, scene_of)
    fit(run, phase, weights, batches, _narrow(run, lesson, weights, phase.again), check)
    return map_leaves(torch.detach, weights.params())


def _narrow(run, lesson, weights, again):
    """Return the loss of a lesson with matrix products of bfloat16 numbers: half the time where they are built in."""

    def loss_of(batch, part):
        with torch.autocast(run.device.type, torch.bfloat16):
            return lesson.loss(batch, weights.params(), 1.0 if again else part)

    return loss_of


def _shown(value):
    return f"{value:.3f}" if isinstance(value, float) else value


def _workers():
    """Return by how many processes pictures are drawn beside the training."""
    return max(1, min(8, (os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()) - 1))
