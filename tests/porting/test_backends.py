"""backends.py and difference.py: what the comparison sees, and that it is not satisfied by what it should not be."""

import dataclasses

import numpy as np
import pytest
from support import CONFIGS, inputs, models, random

import npgemma
import torch_ref.siglip
from npgemma.porting import difference as differing
from npgemma.porting.backends import Comparison
from npgemma.porting.bounds import BOUNDS
from npgemma.porting.difference import Difference, difference, relative_l2


def test_equal_arrays_differ_by_nothing():
    x = random((3, 4), 0)
    assert difference(x, x.copy()) == Difference(0.0, 1.0, 0.0)


def test_a_wrong_scale_shows_in_the_norm_ratio():
    x = random((3, 4), 0)
    apart = difference(x, 45.25 * x)
    assert apart.norm_ratio == pytest.approx(45.25)
    assert apart.relative_l2 == pytest.approx(44.25)


def test_one_wrong_entry_shows_in_the_largest():
    x = random((100, 100), 0)
    y = x.copy()
    y[3, 4] += 1
    apart = difference(x, y)
    assert apart.relative_l2 < 0.02
    assert apart.largest > 0.1


def test_infinities_must_be_the_same():
    x = np.array([1.0, -np.inf, 2.0])
    assert relative_l2(x, x.copy()) == 0
    assert relative_l2(x, np.array([1.0, 5.0, 2.0])) == np.inf
    assert relative_l2(x, np.array([-np.inf, -np.inf, 2.0])) == np.inf


@pytest.mark.parametrize("found", [np.full((2, 2), np.nan), np.zeros((2, 3))])
def test_nan_and_other_shapes_are_infinitely_far(found):
    assert relative_l2(np.ones((2, 2)), found) == np.inf


def test_whole_numbers_must_be_equal():
    assert relative_l2(np.array([1, 2]), np.array([1, 3])) == np.inf
    assert relative_l2(np.array([True]), np.array([True])) == 0


PLAIN = random((60, 60), 0, "float32")


def one_entry(value):
    """The plain array with another value in one place."""
    changed = PLAIN.copy()
    changed[40, 3] = value
    return changed


@pytest.mark.parametrize("found", [PLAIN * 45.25, one_entry(9), -PLAIN])
@pytest.mark.parametrize("expected", [PLAIN, 1e-30 * PLAIN, one_entry(2)])
@pytest.mark.parametrize("piece", [7, 3600, 2**16])
def test_a_difference_is_its_definition_whatever_the_pieces(expected, found, piece, monkeypatch):
    monkeypatch.setattr(differing, "PIECE", piece)
    apart, (one, other) = difference(expected, found), (x.astype("float64") for x in (expected, found))
    norm, highest = np.linalg.norm(one), np.abs(one).max()
    assert apart.relative_l2 == pytest.approx(np.linalg.norm(other - one) / norm, rel=1e-12)
    assert apart.norm_ratio == pytest.approx(np.linalg.norm(other) / norm, rel=1e-12)
    assert apart.largest == pytest.approx(np.abs(other - one).max() / highest, rel=1e-12)


@pytest.mark.parametrize("piece", [7, 2**16])
def test_infinities_and_zeros_whatever_the_pieces(piece, monkeypatch):
    monkeypatch.setattr(differing, "PIECE", piece)
    infinite = one_entry(-np.inf)
    assert difference(infinite, infinite.copy()) == Difference(0.0, 1.0, 0.0)
    assert relative_l2(infinite, 2 * infinite) == pytest.approx(1)
    for found in (PLAIN, one_entry(np.inf), one_entry(np.nan)):
        assert relative_l2(infinite, found) == np.inf
    assert relative_l2(PLAIN, infinite) == np.inf
    zeros = np.zeros_like(PLAIN)
    assert relative_l2(zeros, zeros.copy()) == 0
    assert relative_l2(zeros, PLAIN) == pytest.approx(np.linalg.norm(PLAIN))
    assert difference(PLAIN, zeros) == Difference(1.0, 0.0, 1.0)


def test_nothing_compared_is_not_passed():
    assert not Comparison({}, 1.0).passed


def test_missing_and_unexpected_arrays_are_not_passed():
    comparison = Comparison({"a": np.ones(2), "b": np.ones(2)}, 1.0)
    comparison.sink("a", np.ones(2))
    assert comparison.missing == ["b"]
    assert not comparison.passed
    comparison.sink("b", np.ones(2))
    assert comparison.passed
    comparison.sink("c", np.ones(2))
    assert not comparison.passed


def test_the_first_array_past_the_bound_is_the_first_made_whatever_the_order_of_comparison():
    comparison = Comparison({"z/x_T": np.ones(2), "a/x_T": np.ones(2)}, 1e-3)
    comparison.sink("a/x_T", np.zeros(2))
    comparison.sink("z/x_T", np.zeros(2))
    assert comparison.past_bound == ["z/x_T", "a/x_T"]
    assert [place for place, _, _, _ in comparison.places()] == ["z", "a"]


# One mistake each in the twin, as porters make them; parity must see every one, and see it first where it was made.
def _plain_gain(x, scale, epsilon):
    import torch.nn.functional as F

    return F.rms_norm(x, x.shape[-1:], scale, epsilon)


def _large_epsilon(x, p, epsilon):
    import torch.nn.functional as F

    return F.layer_norm(x, x.shape[-1:], p.scale, p.bias, 1e-5)


def _exact_gelu(x):
    import torch.nn.functional as F

    return F.gelu(x)


def _neighbours(x_BTNH, angle_BTh):
    import torch

    cos, sin = (f(angle_BTh)[:, :, None].to(x_BTNH.dtype) for f in (torch.cos, torch.sin))
    first, second = x_BTNH[..., ::2], x_BTNH[..., 1::2]
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)


def _causal(prefix_BS, valid_BS, new):
    import torch_ref.mask

    return torch_ref.mask.prefix_lm(prefix_BS & False, valid_BS, new)


def _shifted(valid_BS, new):
    import torch_ref.mask

    return 2 * torch_ref.mask.positions(valid_BS, new)


def _no_position(patch_BTCyx, p, right=torch_ref.siglip.embed_patches):
    return right(patch_BTCyx, dataclasses.replace(p, position_embedding=0 * p.position_embedding))


MISTAKES = {
    "patch positions forgotten": ("torch_ref.siglip.embed_patches", _no_position, "encode_image.0/encode.0"),
    "w for 1 + w": ("torch_ref.gemma.rms_norm", _plain_gain, "logits.0/run_blocks.0/block.0"),
    "LayerNorm epsilon 1e-5": ("torch_ref.siglip.layer_norm", _large_epsilon, "encode_image.0/encode.0/block.0"),
    "exact GELU in SigLIP": ("torch_ref.siglip.gelu", _exact_gelu, "encode_image.0/encode.0/block.0"),
    "exact GELU in Gemma": ("torch_ref.gemma.gelu", _exact_gelu, "logits.0/run_blocks.0/block.0"),
    "rotary pairs of neighbours": ("torch_ref.gemma.rotate", _neighbours, "logits.0/run_blocks.0/block.0"),
    "causal prefix": ("torch_ref.gemma.prefix_lm", _causal, "logits.0/run_blocks.0"),
    "wrong positions": ("torch_ref.gemma.positions", _shifted, "logits.0/run_blocks.0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_known_mistake_is_found_where_it_was_made(monkeypatch, mistake):
    target, wrong, where = MISTAKES[mistake]
    monkeypatch.setattr(target, wrong)
    config = CONFIGS["two key/value heads"]
    model, twin = models(config)
    with npgemma.record() as expected:
        model.logits(*inputs(config))
    comparison = Comparison(expected, BOUNDS["float32"])
    with npgemma.record(sink=comparison.sink):
        twin.logits(*inputs(config))
    assert not comparison.passed
    first = next(place for place, _, _, apart in comparison.places() if apart.relative_l2 > comparison.bound)
    assert first == where
    assert comparison.report([], [])["first_past_bound"].startswith(where)
