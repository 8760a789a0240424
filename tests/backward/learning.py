"""What the tests of gradients share: batches, and torch's autograd of the twin."""

import numpy as np
import torch
from support import CONFIGS, inputs, random

import conversion
import npgemma
from npgemma.backward.answers import Batch, batch_of
from npgemma.params import leaves, map_leaves
from torch_ref import autograd as autograd_of_twin

ROWS = {"caption en": "a large red circle", "ocr": "", "detect star": "<loc0028><loc0621> star", "answer en how": "3"}


def embedded(dtype):
    """Weights, sizes and a batch of the embedded checkpoint."""
    model = npgemma.load(dtype=dtype)
    image = npgemma.image.load_pixels(npgemma.example_image(), model.config.vision.image_size)
    pixels = np.concatenate([np.roll(image, 9 * i, axis=2) for i in range(len(ROWS))])
    return map_leaves(np.array, model.params), model.config, batch_of(model, pixels, [*ROWS], [*ROWS.values()])


def of_random_weights(name, dtype, images=None):
    """The same of a small model with random weights: padding in front, prefixes and answers of two lengths."""
    config = CONFIGS[name]
    pixels, ids, prefix, valid = inputs(config, dtype)
    if images:
        pixels = random((len(ids), images, *pixels.shape[1:]), 5, dtype).clip(-1, 1)
    prefix = np.arange(ids.shape[1]) < np.array([[prefix], [prefix + 2]])
    return conversion.random_params(config, 0, dtype), config, Batch(pixels, ids, prefix, valid, valid & ~prefix)


def of_torch(p):
    return map_leaves(lambda weight: torch.from_numpy(np.array(weight)).requires_grad_(), p)


def loss_of(tensors, batch, config, pixels=None):
    """The loss of the twin, which torch can differentiate."""
    given, *rest = _tensors(batch)
    return autograd_of_twin.loss_of(given if pixels is None else pixels, *rest, tensors, config)


def _tensors(batch):
    return [torch.from_numpy(np.array(array)) for array in vars(batch).values()]


def autograd(p, config, batch):
    loss, dpixels, dp = autograd_of_twin.loss_and_gradients(*_tensors(batch), of_torch(p), config)
    return loss.item(), dpixels.numpy(), {name: weight.numpy() for name, _, weight in leaves(dp)}


def apart(found, expected, beside=None):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected if beside is None else beside))


def of_weights(dp, expected):
    """How far gradients are from torch's, by name; a key's bias has none, and is judged beside that of its matrix."""
    return {name: apart(w, expected[name], expected[name.replace("k_bias", "k")]) for name, _, w in leaves(dp)}
