"""docs/mistakes.md: what it says of known mistakes is so, of a sample by default and of the rest with ``-m slow``."""

import contextlib
import functools
import io
import random

import numpy as np
import pytest
import test_golden
from generated import ROOT, mistakes
from test_logits import Kept

import npgemma
from npgemma.image import load_image
from npgemma.porting import given_tokens
from npgemma.porting.backends import twin_of
from npgemma.porting.bounds import BOUNDS
from npgemma.porting.difference import relative_l2
from npgemma.porting.logits import Answer, diagnose
from npgemma.porting.mistakes import MISTAKES, inject
from npgemma.probe.exchange import SHARED

BOTH = NUMPY, TWIN = "npgemma", "torch_ref"
# The variants of these are other values of the same number: the first stands for all.
ONE_NUMBER = ("rope-theta", "prefix-chunked")
# Another seed is another sample.
SAMPLE = random.Random(4).sample(list(MISTAKES), 2)
REST = [id for id in MISTAKES if id not in SAMPLE]
of_sample_and_rest = pytest.mark.parametrize(
    "ids", [pytest.param(SAMPLE, id="sample"), pytest.param(REST, id="rest", marks=pytest.mark.slow)]
)
# Three times as wide as high: some mistakes change no square image.
WIDE = ROOT / "tiny" / "gallery" / "wide.png"
# The port takes these as its answer, so that a mistake cannot change what comes after: more than a window of three.
PROMPT, TOKENS = "detect red circle ; blue square", [7, 8, 9, 10, 11]


def variants(id):
    return range(1 if id in ONE_NUMBER else len(MISTAKES[id].variants))


def shared(id):
    """Whether a mistake is in a file that serves both backends, so that it cannot be in one alone."""
    return any(name.partition(".")[0] in SHARED for name in MISTAKES[id].variants[0])


def injected(id, packages, variant=0):
    stack = contextlib.ExitStack()
    for package in packages[:1] if shared(id) else packages:
        stack.enter_context(inject(id, package, variant))
    return stack


def golden_sees(golden, package):
    """Whether one backend's logits are farther from Hugging Face's than the bound, and not just within its margin."""
    model = test_golden.load(test_golden.load_backend({NUMPY: "numpy", TWIN: "torch"}[package]), golden)
    if test_golden.logits_apart(model, golden) > 2 * test_golden.LOGITS:
        return True
    tokens, _ = test_golden.answer(model, golden)
    if tokens.shape != test_golden.golden(golden)["tokens"].shape:
        return True
    return test_golden.token_logits_apart(model, golden) > 2 * test_golden.LOGITS


class Injecting:
    """A plugin of pytest that injects a mistake while a test is called, and notes what fails."""

    def __init__(self, *mistake):
        self.mistake, self.outcomes = mistake, []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        with injected(*self.mistake):
            return (yield)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed:
            self.outcomes.append(report.outcome)


def named_test_sees(test, *mistake):
    """Whether a named test fails; of several cases one has to."""
    plugin, path = Injecting(*mistake), f"{ROOT / mistakes.file_of(test)}::{test.partition('::')[2]}"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main(["-q", "--tb=no", "-p", "no:cacheprovider", "--rootdir", str(ROOT), path], plugins=[plugin])
    assert plugin.outcomes, f"{test} did not run"
    return "failed" in plugin.outcomes


def sees(witness, id, packages, variant):
    if "::" in witness:
        return named_test_sees(witness, id, packages, variant)
    with injected(id, packages, variant):
        return all(golden_sees(witness, package) for package in packages)


@of_sample_and_rest
def test_a_golden_or_a_named_test_sees_it(ids):
    """In the reference alone, in the twin alone, and in both."""
    cases = [
        (witness, id, packages, variant)
        for id in ids
        for packages in ([BOTH] if shared(id) else [(NUMPY,), (TWIN,), BOTH])
        for variant in variants(id)
        for witness in mistakes.witnesses(id)
    ]
    assert [case for case in cases if not sees(*case)] == []


def test_witnesses_see_nothing_in_right_programs():
    names = {witness for id in MISTAKES for witness in mistakes.witnesses(id)}
    goldens = [name for name in names if "::" not in name]
    assert not any(golden_sees(name, package) for name in goldens for package in BOTH)


@pytest.mark.slow
def test_logits_name_what_the_page_says(gemma_2_folder):
    model = npgemma.load(gemma_2_folder)
    question = Kept(model, lambda: load_image(WIDE, model.config.vision.image_size), PROMPT, TOKENS)
    for id, mistake in MISTAKES.items():
        if mistakes.around(id):
            continue
        rows = question.logits(mistake.variants[0])[:, : model.tokenizer.size].astype(np.float64)
        report = diagnose(Answer(rows, TOKENS), question, "float32")
        assert [found["name"] for found in report["mistakes"]] == [id] * mistakes.named_by_logits(id), id


@functools.cache
def backends(folder, dtype):
    """Both backends with the same weights, and their right traces."""
    reference = npgemma.load(folder, dtype=dtype)
    models = {NUMPY: reference, TWIN: twin_of(reference)}
    return models, {package: trace(model) for package, model in models.items()}


def trace(model):
    image = load_image(WIDE, model.config.vision.image_size)
    with npgemma.record() as arrays:
        given_tokens.run(model, image.pixels_BYXC, model.tokenizer.prompt(PROMPT), TOKENS)
    return arrays


@of_sample_and_rest
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_arrays_show_what_the_page_says(ids, dtype, gemma_2_folder):
    """Against the other backend's arrays, which are right."""
    models, right = backends(gemma_2_folder, dtype)

    def apart(package, id=None):
        with injected(id, (package,)) if id else contextlib.nullcontext():
            found = trace(models[package])
        expected = right[NUMPY if package == TWIN else TWIN]
        return max(relative_l2(expected[name], found[name]) for name in expected if name in found)

    assert max(map(apart, BOTH)) < BOUNDS[dtype]
    for id in ids:
        assert [apart(package, id) > BOUNDS[dtype] for package in BOTH] == [mistakes.shows(id, dtype)] * 2, id
