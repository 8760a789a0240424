"""What training starts from: the model's sizes, its tokenizer and its first weights."""

import math

import numpy as np
import torch

import conversion
from conversion.vocabulary import write_tokenizer
from npgemma.config import Config, TextConfig, VisionConfig
from npgemma.params import map_leaves
from tiny import scenes
from tiny.prompts import LOCATIONS, examples

VISION = VisionConfig(width=128, mlp_width=384, layers=3, heads=4, image_size=112, patch_size=14)
TEXT = {"width": 128, "mlp_width": 384, "layers": 3, "query_heads": 4, "key_value_heads": 1, "head_width": 32}
CONTEXT = 256
# A few thousand captions and questions hold every word there is.
CORPUS_SCENES = 2000


def prepare(folder):
    """Write the tokenizer.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    Config
        Of the model that goes with it.
    """
    drawn = [scenes.scene(seed) for seed in scenes.TRAINING_SEEDS[:CORPUS_SCENES]]
    corpus = [text for scene in drawn for _, prompt, answer in examples(scene) for text in (prompt, answer)]
    sentences = [text for text in corpus if "<loc" not in text]
    # The trainer only makes pieces of what several of its words share: each word once more by itself becomes a piece.
    words = sorted(set(" ".join(sentences).replace(",", "").split()))
    pieces = write_tokenizer(folder / "tokenizer.model", [*sentences, *words, *(f" {word}" for word in words)])
    rows = 64 * math.ceil((pieces + 1) / 64)
    return Config(VISION, TextConfig(**TEXT, vocabulary=rows, context=CONTEXT), image_token=pieces)


def first_location(config):
    """Return the id of ``<loc0000>``: the last pieces are 1024 ``<loc>`` and 128 ``<seg>``."""
    return config.image_token - LOCATIONS - 128


def initial_params(config, seed):
    """Return the weights to start from: random, but places know their neighbours.

    Parameters
    ----------
    config : Config
    seed : int

    Returns
    -------
    Params
        Of tensors that record gradients.
    """
    randomly = conversion.random_params(config, seed, spread=0)
    params = map_leaves(lambda array: torch.from_numpy(np.array(array, order="C")), randomly)
    per_side, width = config.vision.image_size // config.vision.patch_size, config.text.width
    along = waves(per_side, config.vision.width // 2)
    # In reading order the row changes slowly and the column fast.
    params.vision.position.copy_(torch.cat([along.repeat_interleave(per_side, dim=0), along.repeat(per_side, 1)], 1))
    # Rows of the table are as long as random ones: 1.
    params.text.embedding[first_location(config) :][:LOCATIONS] = waves(LOCATIONS, width) / math.sqrt(width)
    return map_leaves(lambda x: x.requires_grad_(), params)


def waves(count, channels):
    """Return vectors (count, channels) for places in a row, alike where the places are near: sines and cosines."""
    wavelength = np.geomspace(4, 2 * count, channels // 2)
    angle = 2 * math.pi * np.arange(count)[:, None] / wavelength
    return torch.from_numpy(math.sqrt(2) * np.concatenate([np.sin(angle), np.cos(angle)], axis=1)).float()
