"""contrastive.py against its twin and torch's losses."""

import numpy as np
import torch
import torch.nn.functional as F
from support import assert_close, random, tensor

import torch_ref.contrastive as twin
from npgemma import contrastive
from npgemma.porting.bounds import OPERATION


def vectors(dtype, seed):
    x = random((5, 7), seed, dtype)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_sigmoid_loss_is_binary_cross_entropy_of_every_pair(dtype):
    image, text = vectors(dtype, 0), vectors(dtype, 1)
    logits = 8.0 * tensor(image) @ tensor(text).T - 3.0
    labels = torch.eye(5, dtype=logits.dtype)
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / 5
    assert_close(expected, contrastive.sigmoid_loss(image, text, 8.0, -3.0), OPERATION[dtype])
    assert_close(expected, twin.sigmoid_loss(tensor(image), tensor(text), 8.0, -3.0), OPERATION[dtype])


def test_softmax_loss_is_cross_entropy_both_ways(dtype):
    image, text = vectors(dtype, 2), vectors(dtype, 3)
    logits, labels = 8.0 * tensor(image) @ tensor(text).T, torch.arange(5)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert_close(expected, contrastive.softmax_loss(image, text, 8.0), OPERATION[dtype])
    assert_close(expected, twin.softmax_loss(tensor(image), tensor(text), 8.0), OPERATION[dtype])


def test_losses_do_not_overflow(dtype):
    image = vectors(dtype, 4)
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(contrastive.sigmoid_loss(image, -image, 1e4, 0.0))
        assert np.isfinite(contrastive.softmax_loss(image, -image, 1e4))


def test_matching_pairs_cost_less():
    image, text = vectors("float64", 5), vectors("float64", 6)
    assert contrastive.sigmoid_loss(image, image, 10.0, -10.0) < contrastive.sigmoid_loss(image, text, 10.0, -10.0)
    assert contrastive.softmax_loss(image, image, 10.0) < contrastive.softmax_loss(image, text, 10.0)
