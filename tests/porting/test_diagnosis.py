"""diagnosis/ and replay.py: right ports are right, mistakes get their names, and others get none."""

import contextlib
import dataclasses
import functools
import importlib
import types

import numpy as np
import pytest
from support import ROOT

import npgemma
import torch_ref
from npgemma.image import load_image
from npgemma.porting import given_tokens
from npgemma.porting.bounds import IN_FLOAT32, limits
from npgemma.porting.conventions import Conventions
from npgemma.porting.diagnosis import Port, Replays, diagnose
from npgemma.porting.diagnosis.hypotheses import Hypothesis, ask
from npgemma.porting.diagnosis.naming import _below_rounding, stands_out
from npgemma.porting.diagnosis.suspects import suspects
from npgemma.porting.exact import exact
from npgemma.porting.given_tokens import ids_of_trace
from npgemma.porting.mistakes import MISTAKES, inject
from npgemma.porting.mistakes.injection import counted_from
from npgemma.porting.reference import traced
from npgemma.probe.exchange import exchanged
from npgemma.probe.replay import replaying

PROMPT = "detect red circle ; blue square"


@functools.cache
def reference(dtype):
    return exact(npgemma.load(dtype="float64"), dtype)


def pixels():
    # Three times as wide as high: some mistakes change no square image.
    return load_image(ROOT / "tiny/gallery/wide.png", reference("float32").config.vision.image_size).pixels_BYXC


def port(*ids, dtype="float32", tokens=(7, 8), change=contextlib.nullcontext):
    """The twin as somebody's port: some mistakes in it, and its trace of an answer whose tokens are given."""
    twin = torch_ref.load(dtype=dtype)
    with contextlib.ExitStack() as stack:
        for id in ids:
            stack.enter_context(inject(id, "torch_ref"))
        stack.enter_context(change())
        with npgemma.record() as arrays:
            given_tokens.run(twin, pixels(), twin.tokenizer.prompt(PROMPT), list(tokens))
    return Port(arrays, list(tokens), dtype)


def replays(found, shown=""):
    """Replay a port, or what its names that end so show of it."""
    arrays = {name: array for name, array in found.arrays.items() if name.endswith(shown)}
    return Replays(reference(found.dtype), pixels, PROMPT, dataclasses.replace(found, arrays=arrays))


def test_a_replay_without_another_array_is_the_run_itself():
    model, asked = reference("float32"), []

    def choose(name, computed, inside):
        asked.append(name)
        return computed

    rows = given_tokens.run(model, pixels(), model.tokenizer.prompt(PROMPT), [7, 8])
    with replaying(choose):
        again = given_tokens.run(model, pixels(), model.tokenizer.prompt(PROMPT), [7, 8])
    assert np.array_equal(rows, again)
    assert len(asked) > 100


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_right_port_is_within_its_limits(dtype):
    found = replays(port(dtype=dtype))
    assert found.wrong(found.right) == []
    # Nor does any mistake explain what is only rounding: two of the smallest.
    for id in ("exact-gelu", "vision-exact-gelu"):
        asked = ask(found, (id, 0))
        assert not asked.places
        assert abs(asked.c) < 0.3


def test_the_limits_of_what_a_port_leaves_out_are_added_up():
    found = port()
    everything, sparse = replays(found), replays(found, ("/out_BTD", "/mid_BTD"))
    name = "prefill.0/run_blocks.0/block.0/geglu.0/out_BTD"
    assert sparse.limits[name] > everything.limits[name]
    assert sparse.wrong(sparse.right) == []


def test_later_positions_may_be_rotated_less_exactly():
    entries = replays(port()).entries
    name = "prefill.0/run_blocks.0/block.0/grouped_query_attention.0/rotate.0/rotated_BTNH"
    near, far = (limits(entries, set(entries), "float32", positions=n)[name] for n in (0, 256))
    assert far == pytest.approx(near + 256 * 2**-24)


@pytest.mark.parametrize("rounded", [False, True])
def test_frequencies_rounded_to_bfloat16_are_wrong_in_bfloat16(rounded):
    """Also where the port shows no angles: those of right programs are float32."""

    def wrong(module, right):
        return lambda p_BT, *sizes: p_BT[..., None] * right(p_BT[:, :1] * 0 + 1, *sizes).bfloat16().double()

    found = port(dtype="bfloat16", change=lambda: exchanged({"gemma.angles": wrong} if rounded else {}, "torch_ref"))
    found = replays(found, ("rotate.0/x_BTNH", "rotate.0/rotated_BTNH"))
    rotated = [name for name in found.right if name.endswith("rotate.0/rotated_BTNH")]
    assert [name for name in found.wrong(found.right) if name in rotated] == (rotated if rounded else [])


NORMS = ("gemma.rms_norm", "siglip.layer_norm")


@contextlib.contextmanager
def in_float32(*paths):
    """Functions whose results are no more exact than float32, as those of some of Hugging Face's modules."""
    with pytest.MonkeyPatch.context() as patch:
        for path in paths:
            file, _, name = path.partition(".")
            module = importlib.import_module(f"torch_ref.{file}")
            right = getattr(module, name)
            patch.setattr(module, name, lambda *given, right=right: right(*given).float().double())
        yield


def test_what_a_port_of_float64_calculates_in_float32_is_judged_as_that():
    exact = replays(port(dtype="float64"))
    assert (exact.in_float32, exact.wrong(exact.right)) == ((), [])
    partly = replays(port(dtype="float64", change=lambda: in_float32(*NORMS, "attention.softmax")))
    name = "prefill.0/run_blocks.0/block.0/normed_BTD"
    assert partly.right[name].error > exact.limits[name]
    assert (partly.in_float32, partly.wrong(partly.right)) == (IN_FLOAT32, [])


def test_a_single_function_in_float32_is_a_mistake_of_a_port_of_float64():
    found = replays(port(dtype="float64", change=lambda: in_float32("gemma.rms_norm")))
    assert found.in_float32 == ()
    assert "prefill.0/run_blocks.0/block.0/normed_BTD" in found.wrong(found.right)


def test_what_a_trace_could_not_show_is_not_named_by_its_direction():
    found = types.SimpleNamespace(port=Port({}, [], "float32"))
    asked = [
        Hypothesis(id, 0, [], None, None, [], c=c, z=c * visible, visible=visible)
        for id, c, visible in [("rms-epsilon", 0.8, 18.0), ("exact-gelu", 0.8, 30.0)]
    ]
    assert [each.id for each in _below_rounding(found, asked)] == ["exact-gelu"]


# One of each kind: a factor, an operation, a mask, heads, a step, an input, a weight of which little is left.
KINDS = [
    "image-scaled", "exact-gelu", "causal-prefix", "kv-heads-tiled", "position-skipped", "text-unscaled",
    "rms-no-plus-one",
]  # fmt: skip


@pytest.mark.parametrize("id", KINDS)
def test_it_explains_what_it_made(id):
    found = replays(port(id))
    wrong = found.wrong(found.right)
    assert wrong
    asked = ask(found, (id, 0))
    assert asked.places == wrong
    assert not asked.contradictions
    # Other mistakes do not.
    for other in ("no-vision-positions", "rms-epsilon", "rope-theta"):
        assert not ask(found, (other, 0)).places


IN_ARRAYS = [id for id, mistake in MISTAKES.items() if mistake.shows_in_arrays and not mistake.only_gemma2]


@pytest.mark.slow
@pytest.mark.parametrize("id", IN_ARRAYS)
def test_every_mistake_explains_a_whole_trace_of_it(id):
    """What is wrong, or its direction, if that is less than rounding; but for two that change nothing here."""
    found = replays(port(id))
    asked, wrong = ask(found, (id, 0)), found.wrong(found.right)
    assert not asked.contradictions
    assert set(wrong) <= set(asked.places)
    assert not wrong or suspects(found, wrong[0], [(id, 0)])
    inert = id in ("embedding-scale-bfloat16", "padding-visible")
    assert bool(wrong) or inert or stands_out(asked.c, asked.z, asked.visible)


def test_only_what_can_have_made_the_first_wrong_array_is_tried():
    """So that the time does not grow with the library: of the wrong operation, and of its neighbours that hide it."""
    for shown, most in (("gate_BTF", 8), ("/out_BTD", 12)):
        tried = []
        report = diagnose(replays(port("exact-gelu"), (shown, "/x_BTD", "mid_BTD")), tried.append)
        assert [each["name"] for each in report["mistakes"]] == ["exact-gelu"]
        assert "exact-gelu" in tried
        assert len(tried) <= most


def test_a_mistake_that_the_port_contradicts_is_not_followed_to_the_end():
    found = replays(port())
    for id in ("vision-causal", "rope-theta", "exact-gelu"):
        assert ask(found, (id, 0)).contradictions
        assert len(found.replay((id, 0))) < len(found.right) / 2


@pytest.mark.parametrize("id", [pytest.param("cache-bfloat16", marks=pytest.mark.slow), "keys-cached-unrotated"])
def test_what_depends_on_an_origin_that_the_port_does_not_show_is_named(id):
    """Of a port that counts from 1 and shows the residual stream alone."""
    found = port(id, change=lambda: exchanged(counted_from(1), "torch_ref"))
    report = diagnose(replays(found, ("mid_BTD", *(f"block.{i}/out_BTD" for i in range(3)), "logit_BV")))
    assert ([each["name"] for each in report["mistakes"]], report["unexplained"]) == ([id], None)


def test_after_another_prompt_positions_say_nothing_of_conventions():
    found = replays(port("no-bos"))
    assert (found.conventions.origin, found.conventions.turns) == (0, 0)
    assert found.wrong(found.right) == ["prompt"]
    # A port that counts from 1 does so in a prompt of any length; in a step that length would show.
    position = "prefill.0/run_blocks.0/positions.0/position_BT"
    counted = {
        "step.0/run_blocks.0/positions.0/position_BT": np.array([[9]]),
        position: found.port.arrays[position] + 1,
    }
    assert Conventions(traced(found.model, pixels(), found._prompt_ids(), [7, 8]), counted).origin == 1
    # An array that only a mistake makes, as the mask of causal attention among patches, is nothing to fill.
    mask_BTS = np.ones((1, 2, 2), bool)
    assert found.conventions.filled_alike("siglip.0/mask_BTS", mask_BTS, mask_BTS) is mask_BTS


def test_two_mistakes_do_not_hide_each_other():
    found = replays(port("vision-epsilon", "gate-up-swapped"))
    for id in ("vision-epsilon", "gate-up-swapped"):
        asked = ask(found, (id, 0))
        assert asked.places
        assert not asked.contradictions


def test_a_mistake_below_rounding_is_seen_by_its_direction():
    asked = ask(replays(port("exact-gelu", dtype="bfloat16")), ("exact-gelu", 0))
    assert not asked.places
    assert asked.c == pytest.approx(1, abs=0.3)
    assert asked.z > 12


@pytest.mark.slow
@pytest.mark.parametrize("id", [None, "rms-epsilon", "no-newline", "silu", "k-v-swapped"])
def test_the_whole_diagnosis(id):
    report = diagnose(replays(port(*filter(None, [id]))))
    assert report["verdict"] == ("mistake" if id else "right")
    assert [each["name"] for each in report["mistakes"]] == [*filter(None, [id])]


@pytest.mark.slow
def test_a_mistake_that_nobody_has_described_gets_no_name():
    import torch

    from torch_ref import gemma

    @contextlib.contextmanager
    def relu():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gemma, "gelu", torch.relu)
            yield

    report = diagnose(replays(port(change=relu)))
    assert report["verdict"] == "undecided"
    assert not report["mistakes"]
    assert report["unexplained"].endswith("block.0/geglu.0/gate_BTF")


def test_tokens_of_a_trace():
    assert ids_of_trace({"prefill.0/x_BSD": 0}) == [0]
    assert ids_of_trace({"step.0/ids_BT": np.array([[7]]), "step.0/x_BTD": 0}) == [7, 0]
    with pytest.raises(npgemma.InputError, match=r"step\.0/ids_BT"):
        ids_of_trace({"step.0/x_BTD": 0})


def test_nothing_to_compare_is_refused():
    with pytest.raises(npgemma.InputError, match="no array that the reference knows"):
        replays(Port({"foreign": np.ones(3)}, [7]))


def test_every_mistake_can_be_asked_or_says_why_not():
    for mistake in MISTAKES.values():
        files = {name.partition(".")[0] for changes in mistake.variants for name in changes}
        assert files <= {"siglip", "image", "paligemma", "gemma", "gemma2", "cache", "tokenizer", "answer", "model"}
