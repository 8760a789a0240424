"""Recordings: names, patterns, sinks, and what is refused."""

import numpy as np
import pytest
from support import CONFIGS, inputs, models

import npgemma
import torch_ref
import torch_ref.siglip
from npgemma.probe.recording import record

CONFIG = CONFIGS["one key/value head"]


def test_both_backends_give_the_same_names_in_the_same_order():
    model, twin = models(CONFIG)
    with record() as ours:
        model.logits(*inputs(CONFIG))
    with record() as theirs:
        twin.logits(*inputs(CONFIG))
    assert list(ours) == list(theirs)
    assert "encode_image.0/encode.0/block.1/self_attention.0/attend.0/weight_BKGTS" in ours
    assert "logits.0/run_blocks.0/block.2/grouped_query_attention.0/attend.0/weight_BKGTS" in ours


def test_what_is_recorded_is_what_was_computed():
    model, _ = models(CONFIG)
    with record() as trace:
        logits = model.logits(*inputs(CONFIG))
    assert np.array_equal(trace["logits.0/logit_BSV"], logits)


def test_the_pass_is_the_same_with_and_without():
    model, _ = models(CONFIG)
    before = model.logits(*inputs(CONFIG))
    with record():
        during = model.logits(*inputs(CONFIG))
    assert np.array_equal(before, during)


def test_arrays_are_copies():
    model, _ = models(CONFIG)
    with record() as trace:
        logits = model.logits(*inputs(CONFIG))
    trace["logits.0/logit_BSV"][:] = 0
    assert logits.any()


def test_only_and_sink():
    model, _ = models(CONFIG)
    seen = []
    with record(only="*/block.1/out_BTD", sink=lambda name, array: seen.append(name)) as trace:
        model.logits(*inputs(CONFIG))
    assert seen == ["encode_image.0/encode.0/block.1/out_BTD", "logits.0/run_blocks.0/block.1/out_BTD"]
    assert not trace


def in_the_forward_pass(function):
    """Return a function of this file as one of ``projector.py``."""
    return type(function)(function.__code__, {"__name__": "npgemma.projector"})


def test_a_name_that_does_not_fit_is_reported(monkeypatch):
    def project(features_BPE, p):
        wrong_BPE = features_BPE[0]
        return features_BPE @ p.linear + wrong_BPE.mean()

    monkeypatch.setattr("npgemma.paligemma.project", in_the_forward_pass(project))
    model, _ = models(CONFIG)
    with pytest.raises(ValueError, match="wrong_BPE has shape"), record():
        model.logits(*inputs(CONFIG))


def test_one_letter_with_two_sizes_is_reported(monkeypatch):
    def project(features_BPE, p):
        other_BPE = features_BPE[:, :-1]
        return features_BPE @ p.linear + other_BPE.mean()

    monkeypatch.setattr("npgemma.paligemma.project", in_the_forward_pass(project))
    model, _ = models(CONFIG)
    told = r"/other_BPE has shape \(\d+, \d+, \d+\), but its letters say {'B': \d+, 'P': \d+, 'E': \d+}$"
    with pytest.raises(ValueError, match=told), record():
        model.logits(*inputs(CONFIG))


@pytest.mark.parametrize("package", [npgemma, torch_ref], ids=["numpy", "torch"])
def test_a_call_through_its_module_is_recorded(package):
    ours, theirs = models(CONFIG)
    model = ours if package is npgemma else theirs
    pixels = model.backend.to_activation(inputs(CONFIG)[0])
    with record() as trace:
        package.siglip.encode(pixels, model.params.vision, CONFIG.vision)
    assert next(iter(trace)) == "encode.0/pixels_BYXC"
    assert "encode.0/block.1/self_attention.0/attend.0/weight_BKGTS" in trace


def test_recordings_are_nested():
    model, _ = models(CONFIG)
    with record(only="*/mid_BTD") as outer:
        model.logits(*inputs(CONFIG))
        with record(only="*/mid_BTD") as inner:
            model.logits(*inputs(CONFIG))
    assert len(outer) == 2 * len(inner) > 0
    assert {name for name in outer if name.startswith("logits.1/")} == {
        name.replace("logits.0/", "logits.1/") for name in inner if name.startswith("logits")
    }
