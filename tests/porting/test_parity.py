"""npgemma/porting/parity: its checks see what they should, and its report holds everything, and is JSON."""

import contextlib
import json
import math

import numpy as np
import pytest
from support import CONFIGS

import conversion
import npgemma
from npgemma.command import main
from npgemma.config import PUBLISHED
from npgemma.errors import InputError
from npgemma.porting.bounds import BOUNDS
from npgemma.porting.difference import relative_l2
from npgemma.porting.mistakes import inject
from npgemma.porting.parity import CHECKS, Parity, checks, document, models, summary
from npgemma.porting.parity.questions import IMAGES, LONG, PAIRS, PROMPTS, SHORT, photo

FLOAT64 = "every named array, float64"


def every_array(dtype, pair):
    return ", ".join(("every named array", dtype, *pair))


@pytest.fixture
def parity(random_folder):
    return Parity(random_folder)


def test_the_photo_is_the_same_every_time_and_has_all_sizes_of_detail():
    image, again = (np.asarray(photo()).astype(float) for _ in range(2))
    assert np.array_equal(image, again)
    # The drawn example is flat nearly everywhere; a photo is nowhere, but neighbours are alike.
    steps = np.abs(np.diff(image, axis=1)).mean(axis=-1)
    assert (steps > 0).mean() > 0.9
    assert np.median(steps) < image.std() / 4


def take(monkeypatch, seconds):
    """Let every answer take so long, whatever it takes."""
    clock = iter(range(0, 10000 * seconds, seconds))
    monkeypatch.setattr(checks.time, "perf_counter", lambda: next(clock))


@pytest.mark.parametrize(("seconds", "count"), [(14, 6), (16, 3), (119, 3), (121, 1)])
def test_models_that_take_long_are_asked_less(parity, monkeypatch, seconds, count):
    take(monkeypatch, seconds)
    asked = parity.asked("float32")
    assert len(asked) == count
    if count > 1:
        assert {image for image, _ in asked} == set(IMAGES)
        assert {prompt for _, prompt in asked} == set(PROMPTS)
        assert {SHORT, LONG} <= set(asked)
    outcomes = [parity.run(f"same tokens, float32, {image}, {prompt}")[0] for image, prompt in PAIRS]
    assert outcomes == ["passed"] * count + ["skipped"] * (len(PAIRS) - count)
    rows = {1: set(), 3: {"padded"}, 6: {"padded", "not padded"}}[count]
    assert parity.run("one pass of padded rows, float32, numpy")[0] == ("passed" if rows else "skipped")
    kinds = {each["measurement"].rpartition(", ")[2] for each in parity.measurements if "pass" in each["measurement"]}
    assert kinds == rows


def test_a_mistake_in_the_twin_is_found_at_every_image_and_prompt(parity, monkeypatch):
    monkeypatch.setattr("torch_ref.gemma.gelu", lambda x: x)
    for pair in PAIRS:
        outcome, reason = parity.run(every_array("float32", pair))
        assert (outcome, "first in prefill.0/run_blocks.0/block.0/geglu.0/" in reason) == ("failed", True), pair


@pytest.mark.parametrize(
    ("mistake", "used", "reason"),
    [
        (None, 150, "None"),
        (None, 250, "past the bound first in"),
        ("rope-interleaved", 150, "past the limit of its operation: prefill.0/run_blocks.0/block.0/"),
    ],
)
def test_in_bfloat16_each_operation_is_judged_by_itself_past_the_bound(parity, monkeypatch, mistake, used, reason):
    name = every_array("bfloat16", SHORT)
    with inject(mistake, "torch_ref") if mistake else contextlib.nullcontext():
        parity.run(name)
        worst = max(place["percent_of_bound"] for place in parity.measurements[0]["places"])
        monkeypatch.setitem(BOUNDS, "bfloat16", BOUNDS["bfloat16"] * worst / used)
        judged = Parity(parity.source)
        assert reason in str(judged.run(name)[1])
    kinds = {each["measurement"] for each in judged.measurements}
    assert ("own error, product" in kinds) == (used < 200)


def test_tokens_may_be_exchanged_as_far_as_rounding_was_measured(parity):
    answer, name = parity.answer("float32", *SHORT), "same tokens, float32, " + ", ".join(SHORT)
    expected, found = (answer.logits[backend] for backend in ("numpy", "torch"))
    found[:] = expected
    best, second = np.argsort(expected[0])[-1:-3:-1]
    found[0, [best, second]] = expected[0, [second, best]]
    # Two wrong logits of many are no rounding; if all are as far off, they are.
    assert expected.shape[1] > 2 * 12**2
    assert parity.run(name)[0] == "failed"
    assert parity.measurements[-1]["tokens"] == [best, second]
    found[0] += expected[0, best] - expected[0, second]
    assert parity.run(name)[0] == "passed"
    assert parity.measurements[-1]["margin"] < parity.measurements[-1]["rounding"]
    assert checks.largest_margin(np.zeros(3), np.full(3, 2.0)) == pytest.approx(12 * np.sqrt(2))


def test_a_cache_that_forgets_is_found_in_one_pass(parity, monkeypatch):
    assert [parity.run(f"one pass of padded rows, float32, {name}")[0] for name in ("numpy", "torch")] == ["passed"] * 2
    monkeypatch.setattr("npgemma.gemma.positions", lambda valid_BS, new: np.zeros((len(valid_BS), new)))
    assert parity.run("one pass of padded rows, float32, numpy")[0] == "failed"
    assert min(each["percent_of_bound"] for each in parity.measurements[-2:]) > 1e4


def test_a_row_alone_is_padded_to_the_longer_prompt(parity):
    [alone, _] = checks.one_pass(parity, "float32", [SHORT, LONG], "numpy")
    with npgemma.record(only="logits.0/valid_BT") as trace:
        [padded] = checks.one_pass(parity, "float32", [SHORT], "numpy")
    assert relative_l2(alone, padded) < 1e-6
    tokenizer = parity.both("float32").numpy.tokenizer
    short, long = (len(tokenizer.prompt(prompt)) for _, prompt in (SHORT, LONG))
    assert (~trace["logits.0/valid_BT"][0]).sum() == long - short > 0


def test_float64_reads_the_weights_of_every_block(parity, monkeypatch):
    assert parity.run(FLOAT64) == ("passed", None)
    [all_blocks] = parity.measurements
    assert all_blocks["blocks"] == all_blocks["of_blocks"] == {"vision": 2, "text": 3}
    assert {place["place"].rpartition("/")[2] for place in all_blocks["places"]} >= {"block.0", "block.1", "block.2"}
    monkeypatch.setattr(models, "fitting_blocks", lambda config, free: {"vision": 1, "text": 2})
    fewer = Parity(parity.source)
    assert fewer.run(FLOAT64) == ("passed", None)
    assert 100 < fewer.measurements[0]["arrays"] < all_blocks["arrays"]


def test_float64_compares_with_what_the_weights_are_and_not_with_itself(parity, monkeypatch):
    monkeypatch.setattr("torch_ref.gemma.rms_norm", lambda x, scale, epsilon: x)
    outcome, reason = parity.run(FLOAT64)
    assert (outcome, "first in prefill.0/run_blocks.0/block.0/" in reason) == ("failed", True)


def test_what_does_not_fit_into_memory_is_skipped(parity, monkeypatch):
    monkeypatch.setattr(models, "available_memory", lambda: 1e5)
    assert {parity.run(name)[0] for name in CHECKS} == {"skipped"}
    assert "GB of memory in bfloat16" in parity.tests[-3]["reason"]


def test_fewer_blocks_are_taken_where_memory_is_short():
    config = PUBLISHED["paligemma-3b-224"]
    counts = [models.fitting_blocks(config, free) for free in (1e9, 12e9, 40e9)]
    assert counts[0] == {"vision": 0, "text": 0}
    assert 0 < counts[1]["text"] < counts[2]["text"] == 18
    assert 0 < counts[1]["vision"] < counts[2]["vision"] == 27
    # What README says.
    assert 11e9 < models.needed_memory(config, "bfloat16") < models.needed_memory(config, "float32") < 16e9


def test_the_size_of_a_block_is_that_of_its_weights(random_folder):
    params, _ = conversion.read_folder(random_folder)
    blocks = sum(leaf.size for name, _, leaf in npgemma.params.leaves(params) if ".blocks." in name)
    sizes, config = models.block_sizes(CONFIGS["two key/value heads"]), CONFIGS["two key/value heads"]
    assert blocks == config.vision.layers * sizes["vision"] + config.text.layers * sizes["text"]


PLACES = [{"worst": "prefill.0/x_BTD", "percent_of_bound": 10.0}, {"worst": "step.1/y_BTD", "percent_of_bound": 20.0}]
MEASURED = [
    {"measurement": "every named array", "dtype": "float32", "image": "photo", "prompt": "ocr", "places": PLACES},
    {"measurement": "every named array", "dtype": "float32", "image": "example", "prompt": "ocr", "places": PLACES[:1]},
    {"measurement": "padded", "dtype": "bfloat16", "backend": "torch", "percent_of_bound": 3.25},
    {"measurement": "published numbers", "dtype": "float32", "variant": "mix"},
]


def test_the_summary_has_the_worst_of_each_kind():
    assert summary(MEASURED) == [
        "every named array, float32: 20.0 % of the bound used at most (photo; ocr; step.1/y_BTD)",
        "padded, bfloat16: 3.2 % of the bound used at most (torch)",
        "published numbers, float32: variant mix",
    ]


def test_what_is_infinitely_far_is_still_json(parity):
    far = MEASURED[2] | {"percent_of_bound": math.inf, "norm_ratio": (math.nan, 1.0)}
    parity.measurements.append(far)
    [found] = json.loads(json.dumps(document(parity)), parse_constant=pytest.fail)["measurements"]
    assert found == far | {"percent_of_bound": "inf", "norm_ratio": ["nan", 1.0]}


def test_the_report_of_a_run(random_folder, tmp_path, capsys):
    path = tmp_path / "report.json"
    assert main(["parity", "--checkpoint", str(random_folder), "--report", str(path)]) == 0
    report, out = json.loads(path.read_text()), capsys.readouterr().out
    assert str(random_folder) not in path.read_text()
    outcomes = {test["test"]: (test["outcome"], test["reason"]) for test in report["tests"]}
    assert list(outcomes) == list(CHECKS)
    assert outcomes[FLOAT64] == ("passed", None)
    needed = "needs a published PaliGemma 3B at 224 pixels: pass --checkpoint DIR"
    assert outcomes["published numbers, float32"] == ("skipped", needed)
    assert report["versions"].keys() >= {"python", "numpy", "torch"}
    assert report["checkpoint"]["config"]["text"]["layers"] == 3
    assert len(report["checkpoint"]["sha256"]["config.json"]) == 64
    asked = {(each["dtype"], each.get("image")) for each in report["measurements"]}
    assert asked == {("float64", "photo")} | {(d, i) for d in ("float32", "bfloat16") for i in ("photo", "example")}
    for each in report["measurements"]:
        for place in each.get("places", []):
            assert place.keys() >= {"place", "worst", "relative_l2", "norm_ratio", "percent_of_bound"}
    for line in [*summary(report["measurements"]), f"skipped  published numbers, float32: {needed}"]:
        assert line in out


def test_a_broken_check_fails_the_command(random_folder, tmp_path, monkeypatch, capsys):
    def broken(parity):
        raise InputError(f"'{random_folder}' is too far")

    for place in (checks, npgemma.porting.parity):
        monkeypatch.setattr(place, "CHECKS", {"one": (broken,), FLOAT64: CHECKS[FLOAT64]})
    path = str(tmp_path / "report.json")
    assert main(["parity", "--checkpoint", str(random_folder), "--report", path, "--json"]) == 1
    out = json.loads(capsys.readouterr().out)
    assert out == json.loads((tmp_path / "report.json").read_text())
    assert out["tests"][0] == {"test": "one", "outcome": "failed", "reason": "'DIR' is too far"}


@pytest.mark.parametrize("name", [".", "nowhere/report.json"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(Parity, "run", pytest.fail)
    assert main(["parity", "--report", str(tmp_path / name)]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert main(["parity", "--report", str(tmp_path / "x.json"), "--dtype", "float64"]) == 2
    assert "leave out --image, --prompt and --dtype" in capsys.readouterr().err
    assert main(["parity", "--report", str(tmp_path / "x.json"), "--checkpoint", str(tmp_path)]) == 2
    assert "config.json' is missing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_stopped_writes_no_report(tmp_path, monkeypatch):
    monkeypatch.setattr(Parity, "run", lambda self, name: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["parity", "--report", str(tmp_path / "report.json")]) == 130
    assert not list(tmp_path.iterdir())
