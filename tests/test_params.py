"""params.py: one declaration is the shape, the tree and the order."""

import numpy as np
import pytest
from support import CONFIGS

import conversion
from npgemma.axes import AXES
from npgemma.params import build, declared, leaves, map_leaves


@pytest.mark.parametrize("name", CONFIGS)
def test_every_leaf_has_its_declared_shape_and_axes(name):
    params = conversion.random_params(CONFIGS[name], 0)
    found = [(path, axes, array.shape) for path, axes, array in leaves(params)]
    assert found == [(leaf.name, leaf.axes, leaf.shape) for leaf in declared(CONFIGS[name])]
    assert all(set(axes) <= set(AXES) for _, axes, _ in found)


def test_names_are_paths():
    config = CONFIGS["two key/value heads"]
    names = [leaf.name for leaf in declared(config)]
    assert names[0] == "vision.patch_embedding"
    assert "text.blocks.2.attn.q" in names
    assert len(names) == len(set(names))


def test_map_leaves_touches_every_leaf_once():
    params = build(CONFIGS["one key/value head"], lambda leaf: np.zeros(leaf.shape))
    raised = map_leaves(lambda x: x + 1, params)
    assert all((array == 1).all() for _, _, array in leaves(raised))
    assert all((array == 0).all() for _, _, array in leaves(params))


def test_random_weights_are_nowhere_neutral():
    params = conversion.random_params(CONFIGS["one key/value head"], 0)
    for name, _, array in leaves(params):
        assert np.isfinite(array).all(), name
        assert not np.isin(array, (0.0, 1.0)).any(), name
