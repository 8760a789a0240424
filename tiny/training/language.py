"""Second lesson: the whole model learns to answer prompts, token by token, the right answer so far given."""

import collections

import numpy as np
import torch
import torch.nn.functional as F

from npgemma.tokenizer import Tokenizer
from tiny.training import batches, drawing
from tiny.training.places import location_loss, narrowing
from tiny.training.prompts import LOCATIONS, examples
from tiny.training.start import first_location
from torch_ref import gemma, paligemma

# So many prompts for every picture.
PROMPTS = 4
NOTHING = -1
# How often what has nothing to answer is asked, beside the others.
SELDOM = 0.5
# Spread of the edges' targets, from the first step to the last.
SPREAD = (12, 2)
# In validation, an edge is right within so many bins (2 % of the side).
NEAR = 20


class Lesson:
    """What is asked about pictures, and what it costs to be wrong.

    The tokenizer is in the folder; the codebook, on the CPU, says masks in codes. The seed, with each picture, chooses
    the prompts; ``often`` says how often each task is asked in training, beside the others.
    """

    def __init__(self, config, folder, codebook, seed, often):
        self.config, self.folder, self.codebook, self.seed, self.often = config, folder, codebook, seed, often
        self.tokenizer = None
        self.first_location = first_location(config)

    def batch(self, drawn):
        """Return pictures, and prompts about them: those that training asks."""
        return self._rows(drawn, lambda asked, randomness: _choose(asked, self.often, randomness))

    def validation(self, drawn):
        """Return pictures, and one prompt of each kind about them; and which task each row is of."""
        asked = []
        rows = self._rows(drawn, lambda found, randomness: asked.extend(found) or found)
        return rows, [example.task for example in asked]

    def _rows(self, drawn, choose):
        """Return what `scores` takes, as arrays."""
        rows, picture_R = [], []
        for i, scene in enumerate(drawn):
            shown = drawing.shown(scene)
            codes = self.codebook.codes_of([mask for _, mask in shown]).tolist()
            randomness = np.random.default_rng([self.seed, scene.background.grain])
            for example in choose(examples(scene, shown, codes, randomness), randomness):
                rows.append(self._row(example))
                picture_R.append(i)
        pixels_BYXC = batches.pixels_of(drawn, self.config.vision.image_size)
        return {"pixels": pixels_BYXC, "picture": np.array(picture_R), **self._pad(rows)}

    def _row(self, example):
        """Return the tokens of the prefix and of the answer."""
        # Opened late: each process that draws opens its own.
        self.tokenizer = self.tokenizer or Tokenizer(self.folder / "tokenizer.model")
        return self.tokenizer.prompt(example.prompt), [
            *self.tokenizer.pieces.encode(example.answer),
            self.tokenizer.eos,
        ]

    def _pad(self, rows):
        """Bring rows to one length, and say of each token what should follow it."""
        longest = max(len(prefix) + len(answer) for prefix, answer in rows)
        ids_RT = np.full((len(rows), longest), self.config.pad_token)
        target_RT = np.full((len(rows), longest), NOTHING)
        for row, (prefix, answer) in enumerate(rows):
            ids_RT[row, : len(prefix) + len(answer)] = prefix + answer
            target_RT[row, len(prefix) - 1 : len(prefix) + len(answer) - 1] = answer
        place_T = np.arange(longest)
        prefix_RT = place_T < np.array([[len(prefix)] for prefix, _ in rows])
        valid_RT = place_T < np.array([[len(prefix) + len(answer)] for prefix, answer in rows])
        return {"ids": ids_RT, "prefix": prefix_RT, "valid": valid_RT, "target": target_RT}

    def scores(self, batch, params):
        """Run the model on pictures, each with several prompts and their right answers.

        For every token of every answer, in order, return what the model expects (logit_MV), what is right (target_M)
        and which of all prompts it belongs to (row_M).
        """
        # The tower reads a picture once for all its prompts.
        image_RPD = paligemma.encode_image(batch["pixels"], params, self.config)[batch["picture"]]
        prefix_RS, valid_RS = (paligemma.with_image(batch[flag], image_RPD) for flag in ("prefix", "valid"))
        x_RSD = torch.cat([image_RPD, gemma.embed_tokens(batch["ids"], params.text)], dim=1)
        final_RSD = gemma.run_blocks(x_RSD, prefix_RS, valid_RS, params.text, self.config.text)
        # Only the answer's tokens are scored: over the whole vocabulary that saves much.
        answered_RT = batch["target"] != NOTHING
        final_MD = final_RSD[:, image_RPD.shape[1] :][answered_RT]
        with torch.autocast(final_MD.device.type, enabled=False):
            logit_MV = gemma.unembed(final_MD.float()[None], params.text, self.config.text)[0]
        return logit_MV, batch["target"][answered_RT], answered_RT.nonzero()[:, 0]

    def loss(self, batch, params, part):
        """Return the loss at a part (0 to 1) of the training, and which part of the answers' tokens comes out right."""
        logit_MV, target_M, row_M = self.scores(batch, params)
        loss_M = F.cross_entropy(logit_MV, target_M, reduction="none")
        bin_M = target_M - self.first_location
        located = (bin_M >= 0) & (bin_M < LOCATIONS)
        # Of a location, nearly right is nearly as good; that it is a location at all is asked of the whole vocabulary.
        score_MJ = logit_MV[located]
        bins = slice(self.first_location, self.first_location + LOCATIONS)
        kind_M = score_MJ.logsumexp(dim=-1) - score_MJ[:, bins].logsumexp(dim=-1)
        near_M = location_loss(score_MJ[:, bins], bin_M[located], narrowing(part, *SPREAD))
        loss_M = loss_M.masked_scatter(located, kind_M + near_M)
        # Long answers count more than short ones, but not by all of their length: a "yes" is an answer too.
        weight_M = row_M.bincount()[row_M] ** -0.5
        return (weight_M * loss_M).sum() / weight_M.sum(), {"tokens": self._right(logit_MV, target_M).float().mean()}

    @torch.no_grad()
    def accuracy(self, batch, tasks, params):
        """Return for every task which part of the prompts is answered rightly.

        The right answer so far is given, which changes nothing: an answer is right as a whole exactly if each of its
        tokens is the most probable one after the right ones before it. Edges of boxes may be off a little; codes of
        masks are counted one by one, for several can say the same.
        """
        logit_MV, target_M, row_M = self.scores(batch, params)
        right_M = self._right(logit_MV, target_M)
        wrong = set(row_M[~right_M & (target_M < self.first_location + LOCATIONS)].tolist())
        answered = collections.defaultdict(list)
        for row, task in enumerate(tasks):
            answered[task].append(row not in wrong)
        found = {task: sum(right) / len(right) for task, right in answered.items()}
        return found | {"codes": right_M[target_M >= self.first_location + LOCATIONS].float().mean().item()}

    def _right(self, logit_MV, target_M):
        """Say which tokens are the most probable ones; locations may be off a little."""
        chosen_M = logit_MV.argmax(dim=-1)
        located = (target_M >= self.first_location) & (target_M < self.first_location + LOCATIONS)
        return (chosen_M - target_M).abs() <= torch.where(located, NEAR, 0)


def _choose(asked, often, randomness):
    """Choose some of the prompts, important ones more often."""
    weights = np.array([often[example.task] if example.answer else SELDOM for example in asked])
    chosen = randomness.choice(len(asked), min(PROMPTS, len(asked)), replace=False, p=weights / weights.sum())
    return [asked[i] for i in sorted(chosen)]
