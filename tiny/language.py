"""Second lesson: the whole model learns to answer prompts, token by token, the right answer so far given."""

import collections

import numpy as np
import torch
import torch.nn.functional as F

from npgemma.tokenizer import Tokenizer
from tiny.prompts import LOCATIONS, examples
from tiny.start import first_location
from torch_ref import gemma, paligemma

# For every picture its caption and so many other prompts.
OTHER_PROMPTS = 2
NOTHING = -1
# An edge that is off by a few bins of 1024 is nearly right: targets are spread by so many bins.
SPREAD = 6.0
# In validation, an edge is right within so many bins (2 % of the side).
NEAR = 20


class Lesson:
    """What is asked about pictures, and what it costs to be wrong.

    Parameters
    ----------
    config : npgemma.config.Config
    folder : pathlib.Path
        Where the tokenizer is.
    randomness : numpy.random.Generator
        Chooses the prompts.
    """

    def __init__(self, config, folder, randomness):
        self.config, self.randomness = config, randomness
        self.tokenizer = Tokenizer(folder / "tokenizer.model")
        self.first_location = first_location(config)

    def choose(self, scene):
        """Return the caption and some of the other prompts about a scene."""
        caption, *others = examples(scene)
        order = self.randomness.permutation(len(others))[:OTHER_PROMPTS]
        return [caption, *(others[i] for i in order)]

    def scores(self, pixels_BYXC, asked, params):
        """Run the model on pictures, each with several prompts and their right answers.

        Parameters
        ----------
        pixels_BYXC : tensor
        asked : list of lists of (task, prompt, answer)
            For every picture.
        params : Params

        Returns
        -------
        logit_MV : tensor
            For every token of every answer, in order, what the model expects.
        target_M : int tensor
            What is right.
        row_M : int tensor
            Which of all prompts it belongs to.
        """
        rows = [self._row(prompt, answer) for prompts in asked for _, prompt, answer in prompts]
        ids_RT, prefix_RT, valid_RT, target_RT = self._pad(rows)
        picture_R = torch.tensor([i for i, prompts in enumerate(asked) for _ in prompts])
        # The tower reads a picture once for all its prompts.
        image_RPD = paligemma.encode_image(pixels_BYXC, params, self.config)[picture_R]
        prefix_RS, valid_RS = (paligemma.with_image(flag, image_RPD) for flag in (prefix_RT, valid_RT))
        x_RSD = torch.cat([image_RPD, gemma.embed_tokens(ids_RT, params.text)], dim=1)
        final_RSD = gemma.decode(x_RSD, prefix_RS, valid_RS, params.text, self.config.text)
        # Only the answer's tokens are scored: over the whole vocabulary that saves much.
        answered_RT = target_RT != NOTHING
        final_MD = final_RSD[:, image_RPD.shape[1] :][answered_RT]
        logit_MV = gemma.unembed(final_MD[None], params.text)[0]
        return logit_MV, target_RT[answered_RT], answered_RT.nonzero()[:, 0]

    def loss(self, pixels_BYXC, drawn, params):
        """Return the loss, and which part of the answers' tokens come out right."""
        logit_MV, target_M, _ = self.scores(pixels_BYXC, [self.choose(scene) for scene in drawn], params)
        return self._surprise(logit_MV, target_M).mean(), self._right(logit_MV, target_M).float().mean().item()

    @torch.no_grad()
    def accuracy(self, pixels_BYXC, drawn, params):
        """Return for every task which part of the prompts is answered rightly.

        The right answer so far is given, which changes nothing: an answer is right as a whole exactly if each of its
        tokens is the most probable one after the right ones before it. Edges of boxes may be off a little.
        """
        asked = [examples(scene) for scene in drawn]
        logit_MV, target_M, row_M = self.scores(pixels_BYXC, asked, params)
        wrong = set(row_M[~self._right(logit_MV, target_M)].tolist())
        answered = collections.defaultdict(list)
        for row, (task, _, _) in enumerate(prompt for prompts in asked for prompt in prompts):
            answered[task].append(row not in wrong)
        return {task: sum(right) / len(right) for task, right in answered.items()}

    def _row(self, prompt, answer):
        """Return the tokens of the prefix and of the answer."""
        return self.tokenizer.prompt(prompt), [*self.tokenizer.pieces.encode(answer), self.tokenizer.eos]

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
        return tuple(torch.from_numpy(array) for array in (ids_RT, prefix_RT, valid_RT, target_RT))

    def _surprise(self, logit_MV, target_M):
        """Return the loss of each token: of a location, spread over its neighbours."""
        log_MV = F.log_softmax(logit_MV, dim=-1)
        loss_M = F.nll_loss(log_MV, target_M, reduction="none")
        bin_M = target_M - self.first_location
        located = (bin_M >= 0) & (bin_M < LOCATIONS)
        distance = torch.arange(LOCATIONS) - bin_M[located, None]
        weight = torch.softmax(-((distance / SPREAD) ** 2) / 2, dim=-1)
        log_location = log_MV[located, self.first_location : self.first_location + LOCATIONS]
        return loss_M.masked_scatter(located, -(weight * log_location).sum(dim=-1))

    def _right(self, logit_MV, target_M):
        """Say which tokens are the most probable ones; locations may be off a little."""
        chosen_M = logit_MV.argmax(dim=-1)
        located = (target_M >= self.first_location) & (target_M < self.first_location + LOCATIONS)
        return (chosen_M - target_M).abs() <= torch.where(located, NEAR, 0)
