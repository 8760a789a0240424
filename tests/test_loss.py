"""loss.py against its twin and torch's cross-entropy."""

import numpy as np
import torch
import torch.nn.functional as F
from support import assert_close, random, tensor

import torch_ref.loss as twin
from npgemma.loss import next_token_loss
from npgemma.porting.bounds import OPERATION


def test_next_token_loss_is_cross_entropy_of_the_answer(dtype):
    logits = random((3, 6, 11), 7, dtype, scale=3)
    ids = np.random.default_rng(8).integers(0, 11, (3, 6))
    answer = np.arange(6) >= np.array([[2], [4], [1]])
    # Torch's own way: targets that do not count are -100.
    targets = torch.where(tensor(answer), tensor(ids), -100)[:, 1:]
    expected = F.cross_entropy(tensor(logits)[:, :-1].flatten(0, 1), targets.flatten())
    assert_close(expected, next_token_loss(logits, ids, answer), OPERATION[dtype])
    found = twin.next_token_loss(tensor(logits), tensor(ids), tensor(answer))
    assert_close(expected, found, OPERATION[dtype])


def test_a_prompt_costs_nothing(dtype):
    """Whatever the model says of tokens before the answer, the loss is the same."""
    logits, ids = random((1, 5, 7), 9, dtype), np.array([[1, 2, 3, 4, 5]])
    answer = np.array([[False, False, False, True, True]])
    before = next_token_loss(logits, ids, answer)
    logits[:, :2] += random((1, 2, 7), 10, dtype)
    assert next_token_loss(logits, ids, answer) == before
