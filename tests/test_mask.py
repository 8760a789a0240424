"""mask.py: the matrix drawn in the docstring is the matrix that is computed."""

import numpy as np
import pytest
from support import tensor

import torch_ref.mask as twin
from npgemma import mask

# Image, image, padding, prompt, answer, answer.
PREFIX = np.array([[True, True, False, True, False, False]])
VALID = np.array([[True, True, False, True, True, True]])


def drawn(function):
    """The matrix of a docstring, read from it."""
    rows = [line.split() for line in function.__doc__.splitlines()]
    return np.array([[cell == "1" for cell in row[-6:]] for row in rows if row[-6:] and set(row[-6:]) <= {"1", "."}])


def test_docstring_shows_the_mask():
    assert drawn(mask.prefix_lm).shape == (6, 6)
    assert np.array_equal(mask.prefix_lm(PREFIX, VALID, 6)[0], drawn(mask.prefix_lm))


def test_docstring_shows_the_sliding_window():
    """Of 2 tokens; the prefix is whole all the same."""
    assert drawn(mask.sliding_window).shape == (6, 6)
    # Image, image, prompt, answer, answer, answer.
    prefix, valid = np.array([[True, True, True, False, False, False]]), np.ones((1, 6), dtype=bool)
    for package, arrays in ((mask, (prefix, valid)), (twin, map(tensor, (prefix, valid)))):
        found = np.asarray(package.sliding_window(*arrays, 6, 2))[0]
        assert np.array_equal(found, drawn(mask.sliding_window))


def brute_force(prefix, valid, new, window=10**6):
    total = len(valid)

    def near(q, k):
        """How many real tokens there are from the one after k to q."""
        return sum(valid[k + 1 : q + 1]) < window

    return [
        [valid[k] and ((k <= q and near(q, k)) or (prefix[q] and prefix[k])) for k in range(total)]
        for q in range(total - new, total)
    ]


@pytest.mark.parametrize("new", [1, 4, 9])
def test_prefix_lm_is_its_definition(new):
    randomness = np.random.default_rng(new)
    prefix, valid = randomness.random((2, 3, 9)) < 0.6
    expected = np.array([brute_force(*row, new) for row in zip(prefix, valid)])
    assert np.array_equal(mask.prefix_lm(prefix, valid, new), expected)
    assert np.array_equal(twin.prefix_lm(tensor(prefix), tensor(valid), new).numpy(), expected)


@pytest.mark.parametrize("new", [1, 4, 9])
@pytest.mark.parametrize("window", [1, 3, 9])
def test_sliding_window_is_its_definition(new, window):
    randomness = np.random.default_rng(new)
    prefix, valid = randomness.random((2, 3, 9)) < 0.6
    # Before the first real token there is no padding: an image stands there.
    valid[:, 0] = True
    expected = np.array([brute_force(*row, new, window) for row in zip(prefix, valid)])
    assert np.array_equal(mask.sliding_window(prefix, valid, new, window), expected)
    assert np.array_equal(twin.sliding_window(tensor(prefix), tensor(valid), new, window).numpy(), expected)
    assert expected.any(axis=-1).all(), "a query that sees nothing would have an empty softmax"


@pytest.mark.parametrize("new", [2, 6])
def test_positions_skip_padding(new):
    valid = np.array([[1, 1, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1]], dtype=bool)
    expected = np.array([[0, 1, 1, 1, 2, 3], [0, 0, 1, 2, 3, 4]])[:, 6 - new :]
    assert np.array_equal(mask.positions(valid, new), expected)
    assert np.array_equal(twin.positions(tensor(valid), new).numpy(), expected)
