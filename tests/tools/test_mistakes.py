"""mistakes.py: each is caught by Hugging Face's numbers, and in a trace where it says; afterwards it is gone."""

import fnmatch

import numpy as np
import pytest
from support import GEMMA_2, inputs, models
from test_golden import LOGITS, load, load_backend, logits_apart

import npgemma
from npgemma.tools.compare import BOUNDS, difference
from npgemma.tools.mistakes import MISTAKES, made

# Fixed: other programs use them.
IDS = [
    "no-attention-softcap", "no-final-softcap", "no-post-norms", "no-sliding-window", "window-off-by-one",
    "window-in-prefix", "query-scale-not-from-config",
]  # fmt: skip


def test_the_ids_are_fixed():
    assert list(MISTAKES) == IDS
    assert all(mistake.id == id and mistake.says and mistake.made_by for id, mistake in MISTAKES.items())


@pytest.mark.parametrize("backend", ["npgemma", "torch_ref"])
@pytest.mark.parametrize("id", IDS)
def test_hugging_faces_logits_catch_it(id, backend):
    model = load(load_backend("numpy" if backend == "npgemma" else "torch"), "gemma2_window")
    with made(id, backend):
        apart = logits_apart(model, "gemma2_window")
    # Twice the bound: a mistake must not hide in its margin.
    assert apart > 2 * LOGITS
    assert logits_apart(model, "gemma2_window") < LOGITS


@pytest.mark.parametrize("backend", ["npgemma", "torch_ref"])
@pytest.mark.parametrize("id", IDS)
def test_it_shows_where_it_says(id, backend):
    model = models(GEMMA_2)[["npgemma", "torch_ref"].index(backend)]
    with npgemma.record() as right:
        model.logits(*inputs(GEMMA_2))
    with npgemma.record() as wrong, made(id, backend):
        model.logits(*inputs(GEMMA_2))
    assert list(wrong) == list(right)
    apart = [name for name in right if difference(right[name], wrong[name]).relative_l2 > BOUNDS["float32"]]
    shown = [name for name in apart if fnmatch.fnmatchcase(name, MISTAKES[id].place)]
    # What is calculated from the wrong array is wrong as well; what it is calculated from is right.
    earlier = list(right)[: list(right).index(shown[0])]
    assert not [name for name in earlier if name in apart and not _calculated_from(shown[0], name)]


def _calculated_from(first, name):
    """Say whether an array may be made later although its function returned earlier: a call by the same function."""
    function = first.rpartition("/")[0]
    return name.startswith(function + "/")


@pytest.mark.parametrize("id", IDS)
def test_it_is_gone_after_an_error_too(id):
    model, _ = models(GEMMA_2)
    before = model.logits(*inputs(GEMMA_2))
    with pytest.raises(ZeroDivisionError), made(id):
        raise ZeroDivisionError
    np.testing.assert_array_equal(model.logits(*inputs(GEMMA_2)), before)
