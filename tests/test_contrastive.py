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


def test_next_token_loss_is_cross_entropy_of_the_answer(dtype):
    logits = random((3, 6, 11), 7, dtype, scale=3)
    ids = np.random.default_rng(8).integers(0, 11, (3, 6))
    answer = np.arange(6) >= np.array([[2], [4], [1]])
    # Torch's own way: targets that do not count are -100.
    targets = torch.where(tensor(answer), tensor(ids), -100)[:, 1:]
    expected = F.cross_entropy(tensor(logits)[:, :-1].flatten(0, 1), targets.flatten())
    assert_close(expected, contrastive.next_token_loss(logits, ids, answer), OPERATION[dtype])
    found = twin.next_token_loss(tensor(logits), tensor(ids), tensor(answer))
    assert_close(expected, found, OPERATION[dtype])


def test_a_prompt_costs_nothing(dtype):
    """Whatever the model says of tokens before the answer, the loss is the same."""
    logits, ids = random((1, 5, 7), 9, dtype), np.array([[1, 2, 3, 4, 5]])
    answer = np.array([[False, False, False, True, True]])
    before = contrastive.next_token_loss(logits, ids, answer)
    logits[:, :2] += random((1, 2, 7), 10, dtype)
    assert contrastive.next_token_loss(logits, ids, answer) == before


def test_losses_do_not_overflow(dtype):
    image = vectors(dtype, 4)
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(contrastive.sigmoid_loss(image, -image, 1e4, 0.0))
        assert np.isfinite(contrastive.softmax_loss(image, -image, 1e4))


def test_matching_pairs_cost_less():
    image, text = vectors("float64", 5), vectors("float64", 6)
    assert contrastive.sigmoid_loss(image, image, 10.0, -10.0) < contrastive.sigmoid_loss(image, text, 10.0, -10.0)
    assert contrastive.softmax_loss(image, image, 10.0) < contrastive.softmax_loss(image, text, 10.0)
