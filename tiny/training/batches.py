"""What is learned from, drawn beside the training: other processes make the next batches while this one calculates."""

import numpy as np
import torch

from npgemma.image import load_pixels
from tiny.training import drawing, scenes

# Every other training picture is drawn so many times larger and then resized as a photograph would be.
LARGE = 4


class Batches(torch.utils.data.Dataset):
    """One batch for each step of a phase; step by step other pictures, the same ones each time it is asked.

    ``make(scenes)`` returns a dict of arrays for one batch; there are as many seeds for each step as it has pictures.
    """

    def __init__(self, seeds, pictures, make, scene_of=scenes.scene):
        self.seeds, self.pictures, self.make, self.scene_of = seeds, pictures, make, scene_of

    def __len__(self):
        return len(self.seeds) // self.pictures

    def __getitem__(self, step):
        drawn = [self.scene_of(seed) for seed in self.seeds[step * self.pictures :][: self.pictures]]
        return {name: torch.as_tensor(array) for name, array in self.make(drawn).items()}


def load(batches, start, workers):
    """Yield the batches from step ``start`` on, made by so many processes beside this one."""
    return torch.utils.data.DataLoader(
        batches, batch_size=None, sampler=range(start, len(batches)), num_workers=workers, prefetch_factor=4
    )


def pixels_of(drawn: list[scenes.Scene], side: int):
    """Return pictures as a model takes them: half of them drawn as they are, half drawn large and resized."""
    plain = [drawing.picture_for(scene, side) for scene in drawn[::2]]
    large = [drawing.draw(scene, LARGE * side, supersampling=1) for scene in drawn[1::2]]
    in_turn = [picture for pair in zip(plain, large) for picture in pair] + plain[len(large) :]
    return np.concatenate([load_pixels(picture, side) for picture in in_turn])
