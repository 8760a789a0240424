"""First lesson: the vision tower alone learns to say what is where.

Trained with the decoder from the start, the tower learns shapes so slowly that after a quarter of an hour it still
confuses them: one word at the end of a long sentence tells it little. So every patch is first asked directly, through
a layer that is thrown away afterwards: which kind of object do you show, which place has it in the caption, where are
its edges, which codes say its mask, which letters are here, and which make up the text that you are part of?
"""

import numpy as np
import torch
import torch.nn.functional as F

from conversion.codebook import CODES
from conversion.vocabulary import LOCATIONS as LOCATION_PIECES
from conversion.vocabulary import SEGMENTS as MASK_PIECES
from npgemma.config import VisionConfig
from tiny.training import batches, drawing, scenes
from tiny.training.codebook import Codebook
from tiny.training.places import location_loss, narrowing, waves
from tiny.training.prompts import LOCATIONS, forms
from torch_ref import siglip

# What a patch can show; background is 0, text the last.
COLOURS, SIZES = list(scenes.COLOURS), list(scenes.SIZES)
TEXT = 1 + len(scenes.SHAPES)
CHARACTERS = scenes.LETTERS + "0123456789"
MASK_CODES = 16
# A patch shows something if at least this part of it does.
LEAST_PART = 0.08
# Cells in a row of a patch, for its own mask.
CELLS = 7
# Spread of the edges' targets, from the first step to the last.
SPREAD = (24, 4)


def truth(scene: scenes.Scene, config: VisionConfig, shown, codes) -> dict[str, np.ndarray]:
    """Say what every patch shows; the masks' codes are (objects, 16).

    For every patch ``kind`` (0 for the background, a shape, or text); of what it shows ``colour``, ``size``, ``place``
    (in the caption), ``bins`` (of the four edges) and ``codes``; of text ``near`` (the characters in the patch's left
    and right half) and ``spelt`` (all of them): 0 is no character. Of every patch ``inside``, coarsely its own mask:
    which part of each of its `CELLS` by `CELLS` cells is not background, in 255ths.
    """
    patch, per_side = config.patch_size, config.image_size // config.patch_size
    grid = _cut(drawing.cover(scene, config.image_size), per_side, patch)
    fine = drawing.cover(scene, config.image_size, letters=True) > 0
    cell = patch // CELLS
    cells = _cut(fine, per_side, patch).reshape(per_side**2, CELLS, cell, CELLS, cell).mean(axis=(2, 4))
    objects, texts = scene.objects, scene.texts
    names = [*range(1, len(objects) + 1), *(drawing.TEXT - i for i in range(len(texts)))]
    # The last row stands for nothing: without it, a scene of nothing would have no row at all.
    part_OT = np.stack([(grid == name).mean(axis=(2, 3)).ravel() for name in names] + [np.zeros(per_side**2)])
    which_T = part_OT.argmax(axis=0)
    kinds = [*(1 + scenes.SHAPES.index(thing.shape) for thing in objects), *[TEXT] * len(texts), 0]
    boxes = [*(box for box, _ in shown), *(drawing.text_box(text, scene.aspect) for text in texts), (0, 0, 0, 0)]
    colours = [*(COLOURS.index(thing.colour) for thing in objects + texts), 0]
    sizes = [*(SIZES.index(thing.size) for thing in objects), *[0] * len(texts), 0]
    near_O, spelt_O = _characters(scene, per_side)
    return {
        "kind": np.where(part_OT.max(axis=0) >= LEAST_PART, np.array(kinds)[which_T], 0),
        "colour": np.array(colours)[which_T],
        "size": np.array(sizes)[which_T],
        "place": which_T,
        "bins": (np.array(boxes) * (LOCATIONS - 1)).round().astype(int).clip(0, LOCATIONS - 1)[which_T],
        "codes": np.concatenate([codes, np.zeros((len(texts) + 1, MASK_CODES), dtype=int)])[which_T],
        "inside": (255 * cells).astype(np.uint8).reshape(per_side**2, CELLS**2),
        "near": near_O[which_T, np.arange(per_side**2) % per_side],
        "spelt": spelt_O[which_T],
    }


def _characters(scene, per_side):
    """Return for each object (none) and text its characters: those in each half of each column of patches, and all."""
    count = len(scene.objects) + len(scene.texts) + 1
    near_O, spelt_O = np.zeros((count, per_side, 2), dtype=int), np.zeros((count, scenes.LONGEST_TEXT), dtype=int)
    middles = (np.arange(2 * per_side) + 0.5) / (2 * per_side)
    for i, text in enumerate(scene.texts, start=len(scene.objects)):
        written = [1 + CHARACTERS.index(letter) for letter in text.text]
        spelt_O[i, : len(written)] = written
        letter = np.searchsorted(drawing.letter_edges(text, scene.aspect), middles)
        near_O[i] = np.array([0, *written, 0])[letter].reshape(per_side, 2)
    return near_O, spelt_O


def _cut(picture_YX, per_side, patch):
    """Cut a picture into its patches, (row of patches, column of patches, row, column)."""
    return picture_YX.reshape(per_side, patch, per_side, patch).swapaxes(1, 2)


def scene_of(seed, page_every, page_aspects=None):
    """Return what the tower practises on: scenes, and, one in so many, pages of text, for there are many letters."""
    return scenes.page(seed, page_aspects) if seed % page_every == 0 else scenes.scene(seed)


def batch(drawn: list[scenes.Scene], config: VisionConfig, codebook: Codebook) -> dict[str, np.ndarray]:
    """Return pictures and what every patch of them shows; the codebook is on the CPU."""
    truths = []
    for scene in drawn:
        shown = drawing.shown(scene)
        codes = codebook.codes_of([mask for _, mask in shown]).numpy()
        truths.append(truth(scene, config, shown, codes))
    pixels_BYXC = batches.pixels_of(drawn, config.image_size)
    return {"pixels": pixels_BYXC, **{name: np.stack([part[name] for part in truths]) for name in truths[0]}}


class Lesson(torch.nn.Module):
    """The throw-away layer, and what it costs to be wrong."""

    def __init__(self, config):
        super().__init__()
        self.config, width, characters = config, config.width, 1 + len(CHARACTERS)
        self.register_buffer("waves", waves(LOCATIONS, width) / width)
        self.kind = torch.nn.Linear(width, 1 + TEXT)
        self.colour = torch.nn.Linear(width, len(COLOURS))
        self.size = torch.nn.Linear(width, len(SIZES))
        self.place = torch.nn.Linear(width, scenes.MOST_OBJECTS)
        self.edges = torch.nn.Linear(width, 4 * width)
        self.codes = torch.nn.Linear(width, MASK_CODES * CODES)
        self.inside = torch.nn.Linear(width, CELLS**2)
        self.near = torch.nn.Linear(width, 2 * characters)
        self.spelt = torch.nn.Linear(width, scenes.LONGEST_TEXT * characters)

    def loss(self, batch, params, part):
        """Return the loss at a part (0 to 1) of the training, and how much of each question is answered rightly.

        Of the edges that is their mean distance from the right ones in bins.
        """
        features_BTD = siglip.encode(batch["pixels"], params, self.config)
        thing, text = (batch["kind"] > 0) & (batch["kind"] < TEXT), batch["kind"] == TEXT
        shown = thing | text
        asked = {
            "kind": (self.kind(features_BTD[shown]), batch["kind"][shown]),
            "colour": (self.colour(features_BTD[shown]), batch["colour"][shown]),
            "size": (self.size(features_BTD[thing]), batch["size"][thing]),
            "place": (self.place(features_BTD[thing]), batch["place"][thing]),
            "codes": (_split(self.codes(features_BTD[thing]), CODES), batch["codes"][thing].flatten()),
            "near": (_split(self.near(features_BTD[text]), 1 + len(CHARACTERS)), batch["near"][text].flatten()),
            "spelt": (_split(self.spelt(features_BTD[text]), 1 + len(CHARACTERS)), batch["spelt"][text].flatten()),
        }
        # In a small batch there may be no text, or no object; the mean of nothing is no number.
        asked = {name: question for name, question in asked.items() if len(question[1])}
        losses = {name: F.cross_entropy(*question) for name, question in asked.items()}
        right = {name: (score.argmax(dim=-1) == answer).float().mean() for name, (score, answer) in asked.items()}
        losses["background"] = F.cross_entropy(self.kind(features_BTD).flatten(0, 1), batch["kind"].flatten())
        losses["inside"] = 5 * F.binary_cross_entropy_with_logits(self.inside(features_BTD), batch["inside"] / 255)
        if shown.any():
            edge_score = _split(self.edges(features_BTD[shown]), self.config.width) @ self.waves.T
            bins = batch["bins"][shown].flatten()
            losses["edges"] = location_loss(edge_score, bins, narrowing(part, *SPREAD)).mean()
            right["edges"] = (edge_score.argmax(dim=-1) - bins).abs().float().mean()
        return sum(losses.values()), right

    @torch.no_grad()
    def directions(self):
        """Return for each word the direction, of length 1, in which features that it describes differ from others.

        What is asked in several places (a coordinate of four edges, a code of sixteen cells, a letter of four) gets the
        sum of its directions.
        """
        groups = [
            (COLOURS, self.colour.weight),
            # The first row stands for the background, and of the letters for none: no word means them.
            (["", *scenes.SHAPES, "text"], self.kind.weight),
            (SIZES, self.size.weight),
            (["", *CHARACTERS], _summed(self.spelt, scenes.LONGEST_TEXT)),
            (LOCATION_PIECES, self.waves @ _summed(self.edges, 4)),
            (MASK_PIECES, _summed(self.codes, MASK_CODES)),
        ]
        found = {}
        for names, rows in groups:
            apart = F.normalize(rows - rows.mean(dim=0), dim=-1)
            for name, direction in zip(names, apart):
                found |= dict.fromkeys(forms(name), direction)
        return found


def _summed(layer, questions):
    """Return the weights of a layer that asks the same several times, summed over the questions."""
    return layer.weight.view(questions, -1, layer.weight.shape[1]).sum(dim=0)


def _split(scores, each):
    """Take rows of several questions apart."""
    return scores.reshape(-1, each)
