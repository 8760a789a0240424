"""First lesson: the vision tower alone learns to say what is where.

Trained with the decoder from the start, the tower learns shapes so slowly that after a quarter of an hour it still
confuses them: one word at the end of a long sentence tells it little. So every patch is first asked directly, through
a linear layer that is thrown away afterwards: which kind of object do you show, which place has it in the caption, and
where are its edges?
"""

import itertools

import numpy as np
import torch
import torch.nn.functional as F

from tiny import scenes
from torch_ref import siglip

# Colour, shape and size together; kind 0 is the ground.
KINDS = list(itertools.product(scenes.COLOURS, scenes.SHAPES, scenes.SIZES))
OUTPUTS = (1 + len(KINDS), scenes.MOST_OBJECTS, 4)
# A patch shows an object if at least this part of it does.
LEAST_PART = 0.08


def truth(scene, config):
    """Say what every patch shows.

    Parameters
    ----------
    scene : tiny.scenes.Scene
    config : npgemma.config.VisionConfig

    Returns
    -------
    kind_T, place_T : int arrays
        Kind of object (0: ground) and its place in the caption.
    edges_T4 : float32 array
        Top, left, bottom and right edge of the object, as fractions of the picture's side.
    """
    patch, per_side = config.patch_size, config.image_size // config.patch_size
    object_YX = scenes.cover(scene, config.image_size)
    grid = object_YX.reshape(per_side, patch, per_side, patch).swapaxes(1, 2).reshape(per_side**2, patch**2)
    part_OT = np.stack([(grid == i + 1).mean(axis=1) for i in range(len(scene.objects))])
    place_T = part_OT.argmax(axis=0)
    kind_O = np.array([1 + KINDS.index((thing.colour, thing.shape, thing.size)) for thing in scene.objects])
    kind_T = np.where(part_OT.max(axis=0) >= LEAST_PART, kind_O[place_T], 0)
    edges_T4 = np.array([thing.box() for thing in scene.objects], dtype=np.float32)[place_T]
    return kind_T, place_T, edges_T4


class Lesson:
    """The throw-away layer, and what it costs to be wrong.

    Parameters
    ----------
    config : npgemma.config.VisionConfig
    """

    def __init__(self, config):
        self.config = config
        self.layer = torch.nn.Linear(config.width, sum(OUTPUTS))

    def loss(self, pixels_BYXC, drawn, params):
        """Return the loss, and which part of the patches that show an object name it.

        Parameters
        ----------
        pixels_BYXC : tensor
        drawn : list of tiny.scenes.Scene
            What the pixels show.
        params : VisionParams

        Returns
        -------
        loss : tensor
        right : float
        """
        truths = [truth(scene, self.config) for scene in drawn]
        kind_BT, place_BT, edges_BT4 = (torch.from_numpy(np.stack(part)) for part in zip(*truths))
        features_BTD = siglip.encode(pixels_BYXC, params, self.config)
        kind_score, place_score, edges = self.layer(features_BTD).split(OUTPUTS, dim=-1)
        shown = kind_BT > 0
        loss = (
            F.cross_entropy(kind_score.flatten(0, 1), kind_BT.flatten())
            + F.cross_entropy(kind_score[shown], kind_BT[shown])
            + F.cross_entropy(place_score[shown], place_BT[shown])
            + 10 * F.l1_loss(edges[shown], edges_BT4[shown])
        )
        right = (kind_score[shown].argmax(dim=-1) == kind_BT[shown]).float().mean().item()
        return loss, right
