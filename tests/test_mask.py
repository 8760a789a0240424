"""mask.py: the matrix drawn in the docstring is the matrix that is computed."""

import numpy as np
import pytest
from support import tensor

import torch_ref.mask as twin
from npgemma import mask

# Image, image, padding, prompt, answer, answer.
PREFIX = np.array([[True, True, False, True, False, False]])
VALID = np.array([[True, True, False, True, True, True]])


def drawn():
    """The matrix of the docstring, read from it."""
    rows = [line.split() for line in mask.prefix_lm.__doc__.splitlines()]
    return np.array([[cell == "1" for cell in row[-6:]] for row in rows if row[-6:] and set(row[-6:]) <= {"1", "."}])


def test_docstring_shows_the_mask():
    assert drawn().shape == (6, 6)
    assert np.array_equal(mask.prefix_lm(PREFIX, VALID, 6)[0], drawn())


def brute_force(prefix, valid, new):
    total = len(valid)
    return [
        [valid[k] and (k <= q or (prefix[q] and prefix[k])) for k in range(total)] for q in range(total - new, total)
    ]


@pytest.mark.parametrize("new", [1, 4, 9])
def test_prefix_lm_is_its_definition(new):
    randomness = np.random.default_rng(new)
    prefix, valid = randomness.random((2, 3, 9)) < 0.6
    expected = np.array([brute_force(*row, new) for row in zip(prefix, valid)])
    assert np.array_equal(mask.prefix_lm(prefix, valid, new), expected)
    assert np.array_equal(twin.prefix_lm(tensor(prefix), tensor(valid), new).numpy(), expected)


@pytest.mark.parametrize("new", [2, 6])
def test_positions_skip_padding(new):
    valid = np.array([[1, 1, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1]], dtype=bool)
    expected = np.array([[0, 1, 1, 1, 2, 3], [0, 0, 1, 2, 3, 4]])[:, 6 - new :]
    assert np.array_equal(mask.positions(valid, new), expected)
    assert np.array_equal(twin.positions(tensor(valid), new).numpy(), expected)
