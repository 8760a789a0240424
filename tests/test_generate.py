"""generate.py: the same tokens from both backends, stopping, batches, and what sampling keeps."""

import numpy as np
import pytest
import torch
from support import CONFIGS, inputs, models, random, tensor

import torch_ref.generate as twin
from npgemma import generate
from npgemma.machinery.backend import to_numpy

CONFIG = CONFIGS["two key/value heads"]


def answer(model, pixels, ids, valid, max_new_tokens=12, choose=None):
    image = model.backend.encode_image(model.backend.to_activation(pixels), model.params, model.config)
    steps = model.backend.generate(
        image, model.backend.to_array(ids), model.backend.to_array(valid), model.params, model.config,
        choose or model.backend.greedy, max_new_tokens,
    )  # fmt: skip
    return np.stack([to_numpy(id_B) for id_B in steps], axis=1)


def test_both_backends_choose_the_same_tokens():
    model, twin_model = models(CONFIG)
    pixels, ids, _, valid = inputs(CONFIG)
    ours = answer(model, pixels, ids, valid)
    assert ours.shape == (2, 12)
    assert np.array_equal(ours, answer(twin_model, pixels, ids, valid))
    assert len(np.unique(ours)) > 3  # not one token for ever, which anything could agree on


@pytest.mark.parametrize("backend", [0, 1], ids=["numpy", "torch"])
def test_a_batch_answers_each_row_as_alone(backend):
    model = models(CONFIG)[backend]
    pixels, ids, _, valid = inputs(CONFIG)
    together = answer(model, pixels, ids, valid)
    for row in range(2):
        short = ids[row : row + 1][:, valid[row]]
        alone = answer(model, pixels[row : row + 1], short, np.ones(short.shape, dtype=bool))
        assert np.array_equal(together[row], alone[0])


@pytest.mark.parametrize("backend", [0, 1], ids=["numpy", "torch"])
def test_a_row_that_has_ended_waits_with_padding(backend):
    """Row 0 ends at its third token, row 1 at its fifth; then generation stops."""
    model = models(CONFIG)[backend]
    pixels, ids, _, valid = inputs(CONFIG)
    script = np.array([[7, 8, 1, 9, 9, 9], [7, 8, 9, 9, 1, 9]]).T
    steps = iter(script)
    found = answer(model, pixels, ids, valid, choose=lambda logit: model.backend.to_array(next(steps)))
    assert found.tolist() == [[7, 8, 1, 0, 0], [7, 8, 9, 9, 1]]


def test_a_row_goes_on_unchanged_while_another_has_ended():
    """What a finished row is fed is never seen, not even by itself later."""
    model, _ = models(CONFIG)
    pixels, ids, _, valid = inputs(CONFIG)
    free = answer(model, pixels, ids, valid)
    count = 0

    def choose(logit_BV):
        nonlocal count
        count += 1
        chosen = generate.greedy(logit_BV)
        chosen[0] = 1 if count == 2 else chosen[0]
        return chosen

    assert np.array_equal(answer(model, pixels, ids, valid, choose=choose)[1], free[1])


def test_the_context_ends_an_answer():
    """64 tokens of context, 16 of the image, 11 of the prompt: 37 are left."""
    model, _ = models(CONFIG)
    pixels, ids, _, valid = inputs(CONFIG)
    assert answer(model, pixels, ids, valid, max_new_tokens=1000).shape[1] <= 37


def test_greedy_takes_the_first_of_equals():
    logit = np.array([[0.0, 2.0, 2.0, 1.0]])
    assert generate.greedy(logit).tolist() == twin.greedy(tensor(logit)).tolist() == [1]


def reachable(logit, **settings):
    """Ids that some random number can draw, and how often of 2000."""
    uniform = (np.arange(2000) + 0.5) / 2000
    rows = np.repeat(logit[None], 2000, axis=0)
    ours = generate.sample(rows, uniform, **settings)
    theirs = twin.sample(tensor(rows), tensor(uniform), **settings).numpy()
    assert np.array_equal(ours, theirs)
    return np.bincount(ours, minlength=len(logit)) / 2000


def test_sampling_draws_by_probability():
    logit = random(9, 0)
    expected = torch.softmax(tensor(logit) / 0.7, dim=-1).numpy()
    assert np.abs(reachable(logit, temperature=0.7) - expected).max() < 2e-3


def test_top_k_keeps_the_k_most_probable():
    logit = random(9, 1)
    kept = reachable(logit, top_k=3) > 0
    assert set(np.flatnonzero(kept)) == set(np.argsort(-logit)[:3])


def test_top_p_keeps_the_token_that_crosses_p():
    logit = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    assert (reachable(logit, top_p=0.49) > 0).tolist() == [True, False, False, False]
    assert (reachable(logit, top_p=0.6) > 0).tolist() == [True, True, False, False]
    assert (reachable(logit, top_p=0.81) > 0).tolist() == [True, True, True, False]
    assert np.allclose(reachable(logit, top_p=0.6)[:2], [0.625, 0.375], atol=2e-3)


@pytest.mark.parametrize(("top_p", "kept"), [(0.25, 1), (np.nextafter(0.25, 1), 2), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_the_last_token_kept_makes_the_sum_exactly_top_p(top_p, kept):
    """Four tokens of a quarter each, which floating point adds up without rounding."""
    assert np.count_nonzero(reachable(np.zeros(4), top_p=top_p)) == kept


def test_a_random_number_where_two_pieces_meet_draws_the_second():
    quarters = np.array([0.0, np.nextafter(0.25, 0), 0.25, 0.5, 0.75])
    for sample, array in ((generate.sample, np.array), (twin.sample, torch.tensor)):
        assert sample(array(np.zeros((5, 4))), array(quarters)).tolist() == [0, 0, 1, 2, 3]


def test_top_p_counts_what_top_k_left():
    logit = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
    # Of the first two, the first has 4/7, so it alone reaches one half.
    assert (reachable(logit, top_k=2, top_p=0.5) > 0).tolist() == [True, False, False, False]


def test_extreme_settings_draw_something():
    logit = random(9, 2, scale=50)
    best = np.flatnonzero(reachable(logit, temperature=1e-300))
    assert best.tolist() == [logit.argmax()]
    assert np.flatnonzero(reachable(logit, top_p=1e-300)).tolist() == [logit.argmax()]
    assert reachable(logit, temperature=1e300).min() > 0.1


def test_the_largest_random_number_draws_the_least_probable_kept():
    logit = np.array([[3.0, 1.0, 2.0]])
    assert generate.sample(logit, np.array([np.nextafter(1.0, 0.0)])).tolist() == [1]
