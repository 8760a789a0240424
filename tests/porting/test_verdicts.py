"""Verdicts at their borders: what is just within a limit is right, and what is just past it is not."""

import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from support import GEMMA, GEMMA_2

from npgemma.porting import comparing, conventions, coverage, graft, input_set, judge, tokens
from npgemma.porting.backends import Comparison
from npgemma.porting.bounds import ANGLE, BOUNDS, LARGEST_OWN_ERROR, LOGITS_ROUNDING, MARGIN, limits
from npgemma.porting.coverage import Pair
from npgemma.porting.diagnosis import hypotheses, naming
from npgemma.porting.diagnosis.replays import SAME, Place
from npgemma.porting.difference import Difference, difference
from npgemma.porting.judge import Judged
from npgemma.porting.logits import decision
from npgemma.porting.mistakes import MISTAKES


def after(limit):
    return np.nextafter(limit, np.inf)


# A port's logits


def hypothesis(id, explained, effect=1.0):
    return SimpleNamespace(id=id, explained_error=explained, effect=effect, c=1.0)


@pytest.mark.parametrize(
    ("own", "first", "second", "verdict", "count"),
    [
        (LOGITS_ROUNDING, 9.0, 9.0, "right", 0),
        (after(LOGITS_ROUNDING), 9.0, 9.0, "rounding", 0),
        (1.0, 9.0, 9.0, "rounding", 0),
        (after(1.0), 9.0, 9.0, "undecided", 0),
        (9.0, 1.0, 9.0, "mistake", 1),
        (9.0, after(1.0), 9.0, "undecided", 0),
        # The right logits must be more than twice as far as the mistake, and so must every other mistake.
        (after(1.0), 0.5, 9.0, "mistake", 1),
        (1.0, 0.5, 9.0, "rounding", 0),
        (9.0, 0.5, 1.0, "undecided", 2),
        (9.0, 0.5, after(1.0), "mistake", 1),
        # Below a quarter of what rounding does, nothing is told apart.
        (9.0, 0.0, 0.25, "undecided", 2),
        (9.0, 0.0, after(0.25), "mistake", 1),
        (0.25, 0.0, 9.0, "rounding", 0),
        (after(0.25), 0.0, 9.0, "mistake", 1),
        # What leaves a twentieth is named, although that is more than rounding.
        (100.0, 5.0, 99.0, "mistake", 1),
        (100.0, after(5.0), 99.0, "undecided", 0),
    ],
)
def test_a_mistake_is_named_where_all_else_is_twice_as_far(own, first, second, verdict, count):
    comparison = SimpleNamespace(own_error=own, limit=1.0, row_errors=[])
    found, candidates = decision.decide(comparison, [hypothesis("one", first), hypothesis("other", second)])
    assert (found, len(candidates)) == (verdict, count)


def test_advice_names_a_dtype_that_would_do_and_the_first_wrong_row():
    limits = {"float16": 6e-3, "bfloat16": 6e-2}

    def advice(own, *rows, stated=False):
        apart = {"found": np.array([[1.0, 2.0]]), "right": np.array([[5.0, 1.0]]), "norm": 1.0}
        comparison = SimpleNamespace(own_error=own, row_errors=rows, limit=0.5, limit_of=limits.get, **apart)
        return decision.advice("undecided", comparison, [], stated)

    assert "rounding in bfloat16 or float16 " in advice(6e-3)
    assert "rounding in bfloat16 can" in advice(after(6e-3))
    assert "rounding in bfloat16 can" in advice(6e-2)
    assert "rows before row 1 are right" in advice(6e-2, 1.0, after(1.0), stated=True)
    assert "rows before row 1 are right" in advice(after(6e-2), 1.0, after(1.0), 9.0)
    assert "the first row is wrong already" in advice(9.0, after(1.0), 1.0)


def test_a_mistake_whose_effect_is_rounding_is_told_as_unseen():
    comparison = SimpleNamespace(limit=1e-3, dtype="float32")
    comparison.question = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(eos_tokens=(1,))))
    tried = [hypothesis("silu", 9.0, 1e-3), hypothesis("no-bos", 9.0, after(1e-3))]
    names = [each["name"] for each in decision.undecidable(comparison, tried, [5, 1])]
    assert "silu" in names
    assert not {"no-bos", "eos-ignored"} & set(names)
    assert "eos-ignored" in [each["name"] for each in decision.undecidable(comparison, tried, [5])]
    unseen = next(id for id, mistake in decision.MISTAKES.items() if mistake.unseen)
    for effect, told in ((5e-7, True), (6e-7, False)):
        reason = decision._reason(hypothesis(unseen, 9.0, effect), comparison)
        assert (reason == decision.MISTAKES[unseen].unseen) == told


# A port's arrays


def test_an_array_at_its_budget_is_right():
    expected, found = np.array([1.0, 0.0]), np.array([1.0, 0.25])
    pair, alike = Pair("a", "a", expected, found, found, None), SimpleNamespace(undone=lambda *names: names[2])
    assert judge._judged(pair, 0.25, alike).right
    assert not judge._judged(pair, np.nextafter(0.25, 0), alike).right
    comparison = Comparison({"a": expected}, 0.25)
    comparison.sink("a", found)
    assert comparison.passed
    assert comparison.report([1], [1])["places"][0]["percent_of_bound"] == 100
    comparison.bound = np.nextafter(0.25, 0)
    assert comparison.past_bound == ["a"]


def test_the_largest_share_of_a_budget_is_in_percent():
    judged = {
        "a/x_BTD": Judged(None, 0.25, 0.5, right=True),
        "a/y_BTD": Judged(None, 0.5, 2.0, right=True),
        "a/z_BTD": Judged(None, None, 0.1, right=False),
        "a/ids_BT": Judged(None, 0.0, 0.0, right=True),
    }
    largest = comparing._largest(judged)
    assert (largest["name"], largest["percent_of_budget"]) == ("a/x_BTD", 50)
    assert comparing._largest({}) is None


def test_a_layout_at_the_border_of_likeness():
    expected = np.array([[1.0, 0.0]])
    assert coverage.fitting_layout(np.array([[1.0, 0.25]]), expected, "TD", alike=0.25)
    assert not coverage.fitting_layout(np.array([[1.0, after(0.25)]]), expected, "TD", alike=0.25)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_token_may_part_by_twice_what_rounding_moves_a_logit(dtype):
    allowed = 2 * 5 * BOUNDS[dtype]  # of logits whose root mean square is 1
    for margin, verdict in ((allowed * (1 - 1e-9), "rounding"), (allowed * (1 + 1e-9), "defect")):
        row = np.sqrt(1 - margin**2 / 4) + np.array([margin / 2, -margin / 2])
        reference = SimpleNamespace(token_ids=[0], arrays={"prefill.0/logit_BV": row[None]})
        parted = tokens.parting(reference, [1], dtype)
        assert (parted["index"], parted["expected"], parted["found"], parted["verdict"]) == (0, 0, 1, verdict)


def test_steps_up_to_the_first_other_token_can_be_compared():
    names = ["prefill.0/x", "step.0/x", "step.1/x", "step.2/x"]
    assert tokens.comparable(names, [7, 8, 9], [7, 8, 9]) == names
    assert tokens.comparable(names, [7, 5, 9], [7, 8, 9]) == names[:2]
    assert tokens.comparable(names, [5, 8, 9], [7, 8, 9]) == names[:1]
    assert tokens.comparable(names, None, [7]) == names


def test_the_angle_of_position_1_is_read_where_positions_are():
    position_BT, frequency_h = np.array([[0, 1, 4]]), np.array([1.0, 0.5])
    arrays = {"a/angles.0/angle_BTh": position_BT[:, :, None] * frequency_h}
    assert conventions._frequencies(SimpleNamespace(arrays=arrays)) is None
    arrays["a/angles.0/position_BT"] = position_BT
    assert conventions._frequencies(SimpleNamespace(arrays=arrays)).tolist() == [1.0, 0.5]


def test_passes_are_counted_from_the_prefill():
    assert [graft._pass(name) for name in ("encode_image.0/x", "prefill.0/x", "step.0/x", "step.4/x")] == [0, 0, 1, 5]


def test_an_array_of_hidden_operations_may_be_off_by_what_all_of_them_are():
    def entry(*inputs, ops=(), same_as=None, gauge=None):
        return SimpleNamespace(inputs=inputs, ops=ops, same_as=same_as, gauge=gauge)

    entries = {"a": entry(), "b": entry("a", ops=["einsum"]), "c": entry("b", ops=["softmax"]), "d": entry("c")}
    entries |= {"again": entry(same_as="c"), "turned": entry("a", ops=["cos"])}
    one = {kind: MARGIN * largest for kind, largest in LARGEST_OWN_ERROR["float32"].items()}
    all_given = limits(entries, set(entries), "float32", positions=10)
    assert all_given["b"] == one["product"]
    assert all_given["c"] == one["attention weights"]
    assert all_given["d"] == all_given["again"] == one["sum"]
    assert all_given["turned"] == one["rotation"] + 10 * ANGLE
    hidden = limits(entries, {"a", "d"}, "float32")
    assert hidden["d"] == one["sum"] + (one["attention weights"] + one["product"])
    # Never more than a whole pass may be off, nor less than one operation.
    chain = {str(i): entry(*[str(i - 1)] * bool(i), ops=["softmax"]) for i in range(20)}
    assert limits(chain, set(), "float32")["19"] == BOUNDS["float32"]
    assert limits(chain, set(), "bfloat16")["19"] == MARGIN * LARGEST_OWN_ERROR["bfloat16"]["attention weights"]
    # Angles are float32's whatever the dtype, and halves are what they were cut from.
    entries = {"x": entry(), "half": entry("x", ops=("split",)), "p": entry(), "angle": entry("p", gauge="origin: so")}
    entries["rotated"] = entry("half", "angle", ops=["cos"])
    narrow = limits(entries, {"x", "rotated"}, "bfloat16")
    assert narrow["rotated"] == MARGIN * LARGEST_OWN_ERROR["bfloat16"]["rotation"] + BOUNDS["float32"]
    assert (
        limits({"a": entry(ops=["cos"])}, (), "float64", positions=10)["a"]
        == MARGIN * LARGEST_OWN_ERROR["float64"]["rotation"]
    )


# The known mistakes in a port's arrays


def asked(right, under):
    """Ask of one array with the limit 1, by its own error as it is, and under a mistake that moves it by so much."""
    array = np.ones(2)
    graph = SimpleNamespace(upstream=lambda name, groups: list(groups), grouped=lambda names: names)
    replays = SimpleNamespace(
        right={"a": Place(array, right, 0.0, 1.0)},
        replay=lambda *injections: {"a": Place(2 * array, *under, 1.0)},
        wrong=lambda places: [name for name, place in places.items() if place.error > place.limit],
        port=SimpleNamespace(arrays={"a": array}),
        graph=graph,
    )
    return hypotheses.ask(replays, ("silu", 0))


@pytest.mark.parametrize(
    ("right", "under", "places", "contradictions"),
    [
        (after(1.0), (1.0, 9.0), ["a"], []),  # wrong before, right now
        (1.0, (1.0, 9.0), [], []),  # right before: nothing to explain
        (1.0, (after(1.0), after(2.0)), [], ["a"]),  # right before, far from right now
        (1.0, (after(1.0), 2.0), [], []),  # not far enough to contradict
        (9.0, (1.0, 0.5), ["a"], []),
        (9.0, (1.0, SAME), [], []),  # the mistake does not touch it
        (9.0, (1.0, after(SAME)), ["a"], []),
    ],
)
def test_a_mistake_explains_what_is_within_its_limit_only_under_it(right, under, places, contradictions):
    found = asked(right, under)
    assert (found.places, found.contradictions) == (places, contradictions)


@pytest.mark.parametrize(
    ("c", "z", "visible", "named"),
    [
        (1.0, after(12.0), 24.0, True),
        (1.0, 12.0, 24.0, False),
        (1.0, 99.0, np.nextafter(24.0, 0), False),
        (1.39, 99.0, 99.0, True),
        (1.41, 99.0, 99.0, False),
        (0.61, 99.0, 99.0, True),
        (0.59, 99.0, 99.0, False),
    ],
)
def test_a_projection_names_a_mistake_near_1_and_far_from_0(c, z, visible, named):
    assert naming.stands_out(c, z, visible) == named


def found_of(id, places=(), explained=0.0, **others):
    return hypotheses.Hypothesis(id, 0, list(places), 9.0, explained, others.pop("contradictions", []), **others)


@pytest.mark.parametrize(("config", "only_gemma2"), [(GEMMA["two key/value heads"], False), (GEMMA_2, True)])
def test_a_trace_is_asked_for_what_its_model_can_have_and_arrays_can_show(config, only_gemma2):
    asked = [id for id, _ in naming._askable(SimpleNamespace(model=SimpleNamespace(config=config)))]
    assert ("silu" in asked, "kv-heads-tiled" in asked) == (True, True)
    assert ("no-sliding-window" in asked, "norms-shifted" in asked) == (only_gemma2, only_gemma2)
    assert not {"locations-1024", "padded-vocabulary-wins", "eos-ignored"} & set(asked)
    assert asked.count("prefix-chunked") == 9


def test_of_mistakes_that_explain_the_same_none_is_named_unless_twice_as_near():
    def named(*asked, wrong=("a", "b", "c")):
        found, rest = naming._explaining(asked, wrong)
        return [each.id for each in found], rest

    assert named(found_of("one", "ab", 0.1), found_of("two", "ab", 0.2)) == (["one"], ["c"])
    assert named(found_of("one", "ab", 0.1), found_of("two", "ab", np.nextafter(0.2, 0))) == ([], ["a", "b", "c"])
    assert named(found_of("one", "ab", 0.0), found_of("two", "ab", 0.0)) == ([], ["a", "b", "c"])
    assert named(found_of("one", "ab"), found_of("two", "c")) == (["one", "two"], [])
    assert named(found_of("one", "a", 0.1), found_of("two", "abc", 0.4)) == (["two"], [])
    assert named(found_of("one", "abc", contradictions=["d"])) == ([], ["a", "b", "c"])
    assert named(found_of("one", "ab", 0.3), found_of("one", "ab", 0.1)) == (["one"], ["c"])


def test_of_what_stays_unexplained_the_nearest_mistakes_are_told():
    asked = [
        found_of("one", "abc", contradictions=["d"]),
        found_of("two", "b"),
        found_of("one", "b"),
        found_of("x", "d"),
    ]
    nearest = [tuple(each.values()) for each in naming._nearest(asked, ["b", "c"])]
    assert nearest == [("one", 2, "d"), ("two", 1, None)]


@pytest.mark.parametrize(("dtype", "ids"), [("float32", ["cache-bfloat16", "silu"]), ("bfloat16", ["silu"])])
def test_what_a_narrow_program_does_as_well_is_no_mistake_of_it(dtype, ids):
    sure = {"c": 1.0, "z": 30.0, "visible": 40.0}
    asked = [found_of("silu", **sure), found_of("silu", **sure | {"z": 20.0}), found_of("no-bos", "a", **sure)]
    asked += [found_of("cache-bfloat16", **sure | {"z": 35.0}), found_of("rope-theta", **sure | {"z": 12.0})]
    replays = SimpleNamespace(port=SimpleNamespace(dtype=dtype))
    assert [(each.id, each.z > 25) for each in naming._below_rounding(replays, asked)] == [(id, True) for id in ids]


def test_why_a_trace_cannot_show_a_mistake():
    asked = [
        found_of("silu", visible=0.0),
        found_of("rope-theta", visible=np.nextafter(24.0, 0)),
        found_of("rms-epsilon", visible=24.0),
        found_of("exact-gelu", contradictions=["a"]),
        found_of("no-bos", "a"),
        found_of("padding-visible"),
        found_of("double-bos"),
    ]
    replays = SimpleNamespace(port=SimpleNamespace(dtype="float32"))
    told = {each["name"]: each["reason"] for each in naming._undecidable(replays, asked, [found_of("double-bos")])}
    assert told.pop("silu") == "none of the arrays that were given depends on it"
    assert told.pop("rope-theta") == "its effect is hidden by float32's rounding"
    assert told.pop("padding-visible") == "one prompt alone has no padding"
    assert told
    assert all(reason.startswith("it shows in ") for reason in told.values())


def test_a_prefix_may_be_read_in_chunks_of_usual_sizes():
    ends = []
    for changes in MISTAKES["prefix-chunked"].variants[1:]:
        mask = changes["gemma.prefix_lm"](None, lambda prefix_BS, valid_BS, new: np.ones((1, new, new), dtype=bool))
        seen = mask(None, np.ones((1, 4097), dtype=bool), 4097)[0, 0]
        ends.append(int(seen.sum()))
    assert ends == [16, 32, 64, 128, 256, 512, 1024, 2048]


# A port's inputs


@pytest.mark.parametrize(("name", "levels"), [("a.png", 1), ("a.jpg", 4)])
def test_pixels_may_be_off_by_a_level_and_in_a_jpeg_by_four(name, levels, monkeypatch):
    monkeypatch.setattr(input_set, "causes_of", lambda *about, **most: ())
    right = np.zeros((2, 2, 3), np.float32)  # where a level in float32 is 1.00000006 levels
    for off, passes in ((0, True), (levels, True), (levels + 0.001, False)):
        found = right.copy()
        found[0, 1, 2] += off / 127.5
        is_right, says, _ = input_set._check_pixels(found, right, pathlib.Path(name), "hugging_face")
        assert (is_right, says == "") == (passes, off == 0)


def test_a_difference_in_nothing_is_none():
    assert difference(np.zeros(3), np.zeros(3)) == Difference(0.0, 1.0, 0.0)
    assert difference(np.zeros(3), np.array([0.0, 3.0, 4.0])) == Difference(5.0, 5.0, 4.0)
