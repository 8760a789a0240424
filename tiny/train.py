"""Training: first the vision tower on pictures alone (``tower.py``), then the whole model (``language.py``)."""

import itertools
import json
import math
import sys
import time

import numpy as np
import torch

import conversion
from conversion.safetensors_file import replacing
from npgemma.image import load_pixels
from npgemma.params import leaves, map_leaves
from tiny import language, scenes, tower
from tiny.start import initial_params, prepare

SEED = 0
# Steps, pictures in a step, and the highest learning rate.
TOWER = (3000, 32, 2e-3)
MODEL = (4500, 16, 1e-3)
VALIDATE_EVERY, VALIDATION_SCENES = 500, 150
EXAMPLE_SEED, EXAMPLE_SIDE = scenes.HELD_OUT_SEEDS[5], 336


def train(folder):
    """Make the checkpoint: tokenizer, weights, example picture, and a record of how long it took.

    Parameters
    ----------
    folder : pathlib.Path
        An existing one. The newest weights are saved there several times on the way.
    """
    start = time.perf_counter()
    torch.manual_seed(SEED)
    config = prepare(folder)
    params = initial_params(config, SEED)
    # No picture is seen twice.
    seeds = iter(scenes.TRAINING_SEEDS)
    pictures = teach_tower(params, config, seeds) + teach_model(folder, params, config, seeds)
    with replacing(folder / "example.png") as file:
        scenes.draw(scenes.scene(EXAMPLE_SEED), EXAMPLE_SIDE).save(file, "PNG", optimize=True)
    minutes = round((time.perf_counter() - start) / 60, 1)
    record = {"minutes": minutes, "threads": torch.get_num_threads(), "pictures": pictures}
    with replacing(folder / "training.json") as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())


def teach_tower(params, config, seeds):
    """Train the vision tower to say what every patch shows; return how many pictures it saw."""
    lesson = tower.Lesson(config.vision)
    trained = [*tensors(params.vision), *lesson.layer.parameters()]
    return fit("tower", lambda *batch: lesson.loss(*batch, params.vision), trained, config, seeds, TOWER)


def teach_model(folder, params, config, seeds):
    """Train the whole model to answer, saving it on the way; return how many pictures it saw."""
    # Matrix products of bfloat16 numbers, summed in float32: half the time, where the processor has them.
    torch.set_float32_matmul_precision("medium")
    lesson = language.Lesson(config, folder, np.random.default_rng(SEED))
    validation = picture_batch(iter(scenes.VALIDATION_SEEDS), VALIDATION_SCENES, config)

    def check():
        conversion.save(folder, map_leaves(lambda x: x.detach().numpy(), params), config)
        found = lesson.accuracy(*validation, params)
        print(*(f"{task} {part:.1%}" for task, part in found.items()), sep="  ", file=sys.stderr, flush=True)

    return fit("model", lambda *batch: lesson.loss(*batch, params), tensors(params), config, seeds, MODEL, check)


def fit(name, loss_of, trained, config, seeds, plan, check=None):
    """Take the steps of a plan, with a learning rate that rises shortly and then falls to zero.

    Parameters
    ----------
    name : str
        Shown on the progress line.
    loss_of : callable
        Takes pixels and scenes; returns the loss and the part of what was asked that came out right.
    trained : list of tensors
    config : Config
    seeds : iterator of int
    plan : (int, int, float)
        Steps, pictures in a step, and the highest learning rate.
    check : callable, optional
        Called now and then, and at the end.

    Returns
    -------
    int
        Number of pictures seen.
    """
    steps, batch, rate = plan
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = rate * min(step / 200, (1 + math.cos(math.pi * step / steps)) / 2)
        loss, right = loss_of(*picture_batch(seeds, batch, config))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 50 == 0:
            minutes = (time.perf_counter() - start) / step * (steps - step) / 60
            report = f"{name} {step}/{steps}  loss {loss.item():.3f}  right {right:.1%}  {minutes:.1f} minutes left"
            print(report, file=sys.stderr, flush=True)
        if check and (step % VALIDATE_EVERY == 0 or step == steps):
            check()
    return steps * batch


def picture_batch(seeds, count, config):
    """Draw the next pictures.

    Returns
    -------
    pixels_BYXC : tensor
    drawn : list of tiny.scenes.Scene
    """
    drawn = [scenes.scene(seed) for seed in itertools.islice(seeds, count)]
    side = config.vision.image_size
    pixels_BYXC = np.concatenate([load_pixels(scenes.draw(scene, side), side) for scene in drawn])
    return torch.from_numpy(pixels_BYXC), drawn


def tensors(tree):
    """Return the arrays of a tree or a part of one."""
    return [x for _, _, x in leaves(tree)]
