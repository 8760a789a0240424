"""Coordinates as vectors: near places are alike, and an answer that is off by little costs little."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from tiny.training.prompts import LOCATIONS


def waves(count, channels):
    """Return vectors (count, channels) for places in a row, alike where the places are near: sines and cosines."""
    wavelength = np.geomspace(4, 2 * count, channels // 2)
    angle = 2 * math.pi * np.arange(count)[:, None] / wavelength
    return torch.from_numpy(math.sqrt(2) * np.concatenate([np.sin(angle), np.cos(angle)], axis=1)).float()


def location_loss(score_MJ, bin_M, spread):
    """Return the loss of each location: of what is asked for, and by half as much of each neighbour in turn.

    The target's standard deviation around the right one of the `LOCATIONS` is ``spread``, in bins.
    """
    distance_MJ = torch.arange(LOCATIONS, device=bin_M.device) - bin_M[:, None]
    target_MJ = torch.softmax(-((distance_MJ / spread) ** 2) / 2, dim=-1)
    return -(target_MJ * F.log_softmax(score_MJ, dim=-1)).sum(dim=-1)


def narrowing(part, first, last):
    """Return a spread that falls from ``first`` to ``last`` while ``part`` of the training goes from 0 to 1."""
    return first * (last / first) ** min(part, 1.0)
