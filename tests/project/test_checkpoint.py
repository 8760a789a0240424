"""What must hold for any checkpoint: the embedded one by default, a real one with ``pytest --checkpoint DIR``.

Distances are measured by ``measured.py``, asserted here, printed as percent of their bounds when all is done, and
written for ``--report FILE``.
"""

import gc

import measured
import numpy as np
import published
import pytest
import torch
from measured import LONG, PAIRS, SHORT, Measured

import npgemma
from conversion.folder import read_config
from conversion.memory import available_memory
from npgemma.porting.difference import relative_l2


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def both(request, checkpoint):
    """The checkpoint in both backends, in one dtype after the other."""
    return _load(checkpoint, request.param)


def _load(checkpoint, dtype, device="cpu"):
    # What a test that was skipped or failed held is forgotten only by the collector.
    gc.collect()
    needed, free = measured.needed_memory(read_config(checkpoint), dtype), available_memory()
    if free is not None and free < needed:
        pytest.skip(f"needs {needed / 1e9:.0f} GB of memory in {dtype}, {free / 1e9:.0f} GB are free")
    return Measured(checkpoint, dtype, device)


@pytest.fixture
def note(request, measurements):
    """Keep a measurement for the summary and the report."""

    def note(what, dtype, **values):
        """Keep it."""
        measurements.append({"measurement": what, "dtype": dtype} | values)

    return note


def percent(expected, found, bound):
    """Return the relative L2 error in percent of the bound."""
    return 100 * relative_l2(expected, found) / bound


def worst(report):
    """Return the place that used most of the bound, for a failure's message."""
    return max(report["places"], key=lambda place: place["percent_of_bound"])


def test_every_named_array_in_float64(checkpoint, note):
    """Where rounding hides nothing: image and prompt, weights read block by block. First, while memory is free."""
    config = read_config(checkpoint)
    layers = {"vision": config.vision.layers, "text": config.text.layers}
    blocks = measured.fitting_blocks(config, available_memory())
    if not all(blocks.values()):
        pytest.skip(f"needs memory for a block in float64, {available_memory() / 1e9:.0f} GB are free")
    report = measured.float64(checkpoint, *SHORT, blocks)
    note("every named array", "float64", image=SHORT[0], prompt=SHORT[1], blocks=blocks, of_blocks=layers, **report)
    assert not report["missing"] + report["unexpected"]
    assert report["first_past_bound"] is None, worst(report)


def affordable(both, pairs):
    """Skip, aloud, what would take too long."""
    count = measured.affordable_pairs(both.seconds)
    if not set(pairs) <= set(PAIRS[:count]):
        pytest.skip(f"a pass in {both.dtype} takes about {both.seconds:.0f} s: {count} of {len(PAIRS)} questions asked")


@pytest.mark.parametrize(("image", "prompt"), PAIRS)
def test_every_named_array_of_an_answer(both, note, image, prompt, request):
    """Place by place; both backends go on with the tokens of the port."""
    affordable(both, [(image, prompt)])
    report = both.answer(image, prompt).report
    note("every named array", both.dtype, image=image, prompt=prompt, **report)
    assert not report["missing"] + report["unexpected"]
    assert report["arrays"] > 100
    # In bfloat16 rounding adds up over the layers as the weights will have it: ``parity`` judges each operation there.
    foreign = both.dtype == "bfloat16" and request.config.getoption("--checkpoint")
    assert worst(report)["percent_of_bound"] < (200 if foreign else 100), worst(report)


@pytest.mark.parametrize(("image", "prompt"), PAIRS)
def test_both_backends_choose_the_same_tokens(both, note, image, prompt):
    """Or tokens whose logits are closer than rounding of the size that was measured can tell (random weights)."""
    affordable(both, [(image, prompt)])
    answer = both.answer(image, prompt)
    for step, (ours, theirs) in enumerate(zip(answer.choices["numpy"], answer.choices["torch"], strict=True)):
        expected_V, found_V = answer.logits["numpy"][step], answer.logits["torch"][step]
        margin, allowed = float(expected_V[ours] - expected_V[theirs]), measured.largest_margin(expected_V, found_V)
        if ours != theirs:
            note(
                "tokens differ", both.dtype, image=image, prompt=prompt, step=step, tokens=[ours, theirs],
                margin=margin, rounding=allowed,
            )  # fmt: skip
        assert margin <= allowed, f"step {step}: tokens {ours} and {theirs} are {margin} apart, rounding {allowed}"


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_one_pass_of_padded_rows_is_every_step_alone(both, note, backend):
    """The logits of every token of two answers, each calculated alone through the cache, and together in one pass.

    The longer row has no padding in front of its prompt: if it fails too, look at the cache, otherwise at the padding.
    A model that takes long is asked for the padded row only.
    """
    affordable(both, [SHORT, LONG])
    rows = {"padded": SHORT, "not padded": LONG}
    if measured.affordable_pairs(both.seconds) < len(PAIRS):
        del rows["not padded"]
    together = both.one_pass(rows.values(), backend)
    used = {}
    for (name, pair), found in zip(rows.items(), together, strict=True):
        alone = both.answer(*pair).logits[backend]
        used[name] = percent(alone, found, both.bound)
        note(
            f"one pass against the cache, {name}", both.dtype, backend=backend, image=pair[0], prompt=pair[1],
            percent_of_bound=used[name],
        )  # fmt: skip
    assert max(used.values()) <= 100, used


def test_every_named_array_on_cuda(checkpoint, note):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    both = _load(checkpoint, "float32", "cuda")
    report = both.answer(*SHORT).report
    note("every named array on CUDA", "float32", image=SHORT[0], prompt=SHORT[1], **report)
    assert not report["missing"] + report["unexpected"]
    assert report["first_past_bound"] is None, worst(report)


@pytest.mark.parametrize("both", ["float32"], indirect=True)
def test_published_numbers(both, checkpoint, note):
    """The numbers published of the pt and mix models of 3B at 224 pixels, whichever of the two this is.

    That it is one of that size is read from the config and from the tokenizer's ids. Whether it is pt, mix or a model
    fine-tuned from them can be told by its numbers only. mix: five channels that Keras Hub's tests state. pt: two
    answers that Hugging Face's tests state, about an image that is not ours to ship. If mix is not matched and the
    image is not in the folder, nothing is proved, and this test is skipped with the distance in the reason: our mistake
    and other weights would look alike. With the image, the numbers of one of the two must be matched.
    """
    if published.size_of(checkpoint) != "paligemma-3b-224" or not published.has_published_tokenizer(checkpoint):
        pytest.skip("needs a published PaliGemma 3B at 224 pixels: pass --checkpoint DIR")
    # Keras Hub changed what zeros mean as pixels while the numbers stayed; one of the two must give them.
    errors = []
    for value in (-1.0, 0.0):
        with npgemma.record(only="logits.0/final_BSD") as trace:
            both.port.logits(np.full((1, 224, 224, 3), value, np.float32), [published.MIX_IDS], len(published.MIX_IDS))
        errors.append(float(np.abs(trace["logits.0/final_BSD"][0, 0, :5] - published.MIX_CHANNELS).max()))
    image, answers = checkpoint / published.PT_IMAGE, {}
    for backend, model in both.backends.items():
        if image.exists():
            answers[backend] = {
                prompt: model.generate(image, prompt, max_new_tokens=10).text for prompt in published.PT_ANSWERS
            }
    found = [published.variant(min(errors), answers.get(backend)) for backend in both.backends]
    note("published numbers", "float32", variant=found[0], largest_error_of_mix=min(errors), answers_of_pt=answers)
    if None in found:
        pytest.skip(
            f"not proved which model this is: its numbers are not those of mix (off by {min(errors):.3g}, tolerance "
            f"{published.MIX_TOLERANCE}), and pt is known by {published.PT_IMAGE} only, which is not in the folder"
        )
    assert found[0] == found[1]
