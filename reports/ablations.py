"""What becomes of the embedded model's answers without some blocks or reads: ``python reports/ablations.py``.

Asks of each held-out scene what ``tiny.training.evaluate`` asks, and writes ``reports/ablations.json``: about two
minutes of one core.
"""

import collections
import functools
import json
import pathlib
import sys
from dataclasses import replace

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import npgemma  # noqa: E402
from npgemma.benchmarks.runs import stamp  # noqa: E402
from npgemma.probe.exchange import exchanged  # noqa: E402
from tiny.training import drawing, evaluate, scenes  # noqa: E402

# MOST is in tokens: the longest right answer has 23, with its end.
SCENES, MOST = 120, 24
# What the mask allows, of: the whole mask, what a causal one allows, and the image's reads of the prompt.
MASKS = {
    "causal": lambda whole, causal, reads: whole & causal,
    "causal, but the image reads the prompt": lambda whole, causal, reads: whole & (causal | reads),
    "whole, but the image does not read the prompt": lambda whole, causal, reads: whole & ~reads,
}


def first_blocks(model, tower, count):
    """Return a model of which one tower has its first blocks only, and then its last norm."""
    part = getattr(model.params, tower)
    return replace(model, params=replace(model.params, **{tower: replace(part, blocks=part.blocks[:count])}))


def other_mask(image_tokens, allowed, right, prefix_BS, valid_BS, new):
    """Stand in for `npgemma.mask.prefix_lm`, here ``right``."""
    key_S = np.arange(valid_BS.shape[1])
    query_T = key_S[len(key_S) - new :, None]
    reads_TS = (query_T < image_tokens) & (key_S >= image_tokens)
    return allowed(right(prefix_BS, valid_BS, new), key_S <= query_T, reads_TS)


def right_answers(model, drawn, mask_params):
    """Return for each task how many answers are right, and of how many."""
    tallies = collections.defaultdict(evaluate.Tally)
    for scene in drawn:
        picture, asked = drawing.picture_for(scene, model.config.vision.image_size), evaluate.held_out_examples(scene)
        answers = model.generate_batch([picture], [example.prompt for example in asked], max_new_tokens=MOST)
        for example, answer in zip(asked, answers):
            evaluate.score(tallies, scene, example, answer.text, mask_params)
    return {task: [tallies[task].right, tallies[task].asked] for task in sorted(tallies)}


if __name__ == "__main__":
    model, masks = npgemma.load(), evaluate.codebook_of(npgemma.embedded_checkpoint())
    drawn = [scenes.scene(seed) for seed in scenes.HELD_OUT_SEEDS[:SCENES]]
    found = {"whole": right_answers(model, drawn, masks)}
    for name, tower in (("tower", "vision"), ("decoder", "text")):
        layers = getattr(model.config, tower).layers
        for count in range(1, layers):
            found[f"{name}: {count} of {layers}"] = right_answers(first_blocks(model, tower, count), drawn, masks)
    for name, allowed in MASKS.items():
        changed = functools.partial(functools.partial, other_mask, model.config.image_tokens, allowed)
        with exchanged({"gemma.prefix_lm": lambda module, right, changed=changed: changed(right)}):
            found[f"mask: {name}"] = right_answers(model, drawn, masks)
    report = stamp() | {"scenes": SCENES, "right": found}
    (ROOT / "reports" / "ablations.json").write_text(json.dumps(report, indent=2) + "\n")
