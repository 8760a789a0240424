"""A fourth witness: big_vision's formulas, restated in ``big_vision.py``, in float64 and for both families."""

import dataclasses
import json

import big_vision
import numpy as np
import pytest
from test_golden import GOLDEN, VARIANTS, arguments, load, load_backend

from conversion.folder import read_tensors
from conversion.layout import canonical
from npgemma.config import Gemma2Config
from npgemma.machinery.backend import to_numpy
from npgemma.porting.bounds import BOUNDS
from npgemma.porting.difference import relative_l2


def restated(variant):
    """What big_vision's formulas make of a golden folder's files and questions."""
    folder = GOLDEN / variant
    tensors = {canonical(t.name): t.wide(t.array).astype(np.float64) for t in read_tensors(folder).values()}
    config = json.loads((folder / "config.json").read_text())
    pixels, ids, prefix, valid = arguments(variant)
    images = pixels if pixels.ndim == 5 else pixels[:, None]
    causal = np.broadcast_to(np.arange(ids.shape[1]) >= prefix, ids.shape).astype(int)
    flax = big_vision.from_hub(tensors, config)
    return big_vision.logits(flax, config, images.astype(np.float64), ids, causal, valid), valid


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_big_visions_formulas(variant, backend):
    model = load(load_backend(backend), variant, "float64")
    if isinstance(model.config.text, Gemma2Config):
        # big_vision has no window.
        text = dataclasses.replace(model.config.text, sliding_window=10**6)
        model = dataclasses.replace(model, config=dataclasses.replace(model.config, text=text))
    expected, valid = restated(variant)
    found = to_numpy(model.logits(*arguments(variant)))
    real = np.pad(valid, ((0, 0), (expected.shape[1] - valid.shape[1], 0)), constant_values=True)
    # Largest seen 2.6e-15.
    assert relative_l2(expected[real], found[real]) < BOUNDS["float64"]


def test_the_window_is_all_that_big_vision_lacks():
    expected, _ = restated("gemma2_window")
    found = load(load_backend("numpy"), "gemma2_window", "float64").logits(*arguments("gemma2_window"))
    assert np.abs(found - expected).max() > 0.1
