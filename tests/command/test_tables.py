"""tables.py, port_tables.py and the sheet of the attention: they print the figures of reports, in their units."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from npgemma.command import port_tables
from npgemma.command.attention_sheet import BAR, GAP, HEAT, LETTERS, MAP, SHARES, WORDS, attention_sheet, pale_of, write
from npgemma.command.port_tables import diagnosis_table, logits_table
from npgemma.command.tables import bench_table, inspect_table, parity_table, summary_table
from npgemma.explain.attention_maps import Attention

ARRAYS = [f"prefill.0/{letter}_BTD" for letter in "abcd"]


def parity(**changes):
    place = {"place": "prefill.0", "arrays": 3, "worst": "prefill.0/x_BTD", "relative_l2": 1e-6, "norm_ratio": 1.5}
    report = {
        "places": [place | {"largest": 2e-6, "percent_of_bound": 10.0}],
        "token_ids": {"expected": [1, 2, 3], "found": [1, 2, 4, 5]},
        "missing": [], "unexpected": [], "first_past_bound": None, "arrays": 3, "dtype": "float32", "bound": 1e-5,
        "own_errors": [{"kind": "sum", "arrays": 2, "own_error": 1e-7, "percent_of_limit": 33.4, "worst": "x"}],
        "past_limit": [], "passed": True,
    }  # fmt: skip
    return parity_table(report | changes).splitlines()


def test_parity():
    _, place, own, last = parity()
    assert place.split() == ["prefill.0", "3", "1.00e-06", "5.0e-01", "2.0e-06", "10.00", "x_BTD"]
    assert own == "own error, sum                   2 arrays: 1.0e-07, 33 % of its limit in x"
    assert last == "3 arrays, float32: 10.00 % of the bound 1e-05 used; 2 of 4 tokens equal; passed"
    assert "3 of 4 tokens equal" in parity(token_ids={"expected": [1, 2, 3], "found": [1, 2, 3, 5]})[-1]
    wrong = parity(missing=["m", "n"], unexpected=["u"], first_past_bound="p", past_limit=["q", "r"], passed=False)
    assert "only among those expected: 2 arrays, first m" in wrong
    assert "only among those found: 1 arrays, first u" in wrong
    assert "first array past the bound: p" in wrong
    assert "past its limit: 2 arrays, first q" in wrong
    assert wrong[-1].endswith("FAILED")


def test_what_fits_into_memory():
    facts = {"resolution": 224, "end_tokens": (1, 107), "family": "F", "size": None, "dtype": "F32", "layout": "L"}
    facts |= {"names": "N", "tokenizer": "T", "adapter": None, "memory": {"float32": 2e9, "int8": 1.5e9}}
    facts |= {"notes": ["x"]}
    report = {"checkpoint": "c", "config": {"image_tokens": 256}, "parameters": 1234, "bytes": 2_500_000}
    lines = summary_table(report | {"summary": facts | {"free": 1.5e9}}).splitlines()
    assert lines[2] == "size           none that was published: 1,234 parameters, 2.5 MB"
    assert lines[8:] == [
        "end tokens     1, 107", "adapter        none", "note           x", "",
        "memory for the weights (1.5 GB are free here)",
        "  --dtype float32       2.00 GB  does not fit", "  --dtype int8          1.50 GB  fits", "",
        "--tensors lists every tensor",
    ]  # fmt: skip
    lines = summary_table(report | {"summary": facts | {"free": None}}).splitlines()
    assert lines[12:14] == ["memory for the weights", "  --dtype float32       2.00 GB"]


def test_the_tensors_of_all_layers_are_one_line():
    tensor = {"axes": "DF", "stored_axes": "FD", "shape": [6, 4], "bytes": 750_000}
    tensors = [tensor | {"name": f"t.{i}.up", "stored_name": f"l.{i}.w", "dtype": d} for i, d in enumerate("BA")]
    config = {"vision": {"kinds": ("a", "b", "a")}, "text": {"width": 2048.0}, "image_tokens": 4, "bos_token": 2}
    config |= {"eos_tokens": (1, 107), "image_token": 9}
    report = {"checkpoint": "c", "config": config, "tensors": tensors, "parameters": 48, "bytes": 1_500_000}
    lines = inspect_table(report).splitlines()
    assert lines[2:5] == [
        "vision: kinds 2 a and 1 b", "text: width 2048",
        "image_tokens 4, bos_token 2, eos_tokens 1 107, image_token 9",
    ]  # fmt: skip
    assert lines[7].split() == ["2", "t.*.up", "DF", "FD", "A/B", "6", "x", "4", "1.50", "l.*.w"]
    assert lines[-1] == "48 parameters in 2 tensors, 1.5 MB"


@pytest.mark.parametrize(("busy", "notes"), [(None, 0), (0.5, 0), (0.6, 1)])
def test_speeds(busy, notes):
    stage = {"seconds": 0.5, "spread": 0.25, "limit": 0.25, "percent": 50.0, "tokens_per_second": 2.0}
    report = {
        "limits": {"bytes_per_second": 3e9, "operations_per_second": 4e9}, "backend": "numpy", "device": "cpu",
        "machine": {"versions": {"numpy": "2"}, "threads": 2, "kernel": "K", "load_before": busy, "held_back_by": {}},
        "model": {"parameters": 1000, "dtype": "int8"}, "stages": {"token": stage}, "peak_bytes": 5e9,
        "load_seconds": 1.5,
    }  # fmt: skip
    lines = bench_table(report).splitlines()
    assert lines[:2] == [
        "1,000 parameters, int8, numpy on cpu; 2 threads (numpy 2)",
        "this machine reads 3.0 GB/s and multiplies matrices at 4 GFLOP/s with OpenBLAS's K kernel",
    ]
    assert lines[3].split() == ["token", "0.5000", "25%", "0.2500", "50%", "2.0"]
    assert lines[4] == "loaded in 1.50 s; peak memory 5.00 GB"
    assert len(lines) == 5 + notes


@pytest.mark.parametrize(("others", "says"), [(2, "b_BTD, prefill.0/c_BTD"), (3, "c_BTD and 1 more")])
def test_a_comparison(others, says):
    report = {
        "coverage": {"compared": 9, "kinds": 3, "known_kinds": 2, "unseen_kinds": 1, "unknown": 4, "port_arrays": 13,
                     "misfits": 0, "idle_rules": 0, "logits": 1}, "stored_as": [],
        "port": "p", "other_prompt": None, "tokens": {"found": [1, 2], "parted": None}, "judged_by": "own error",
        "own_errors": [{"kind": "sum", "arrays": 2, "own_error": 1e-7, "allowed": 3e-7, "percent_of_limit": 33.36,
                        "worst": "x"}],
        "largest": {"name": "y", "percent_of_budget": 33.36}, "first": None, "others": (ARRAYS[1:] * 2)[:others],
        "past_budget": 4, "graft": None, "dtype": "float32", "passed": False,
    }  # fmt: skip
    lines = port_tables.compare_table(report).splitlines()
    assert "tokens: 2 compared, all equal" in lines
    assert "  sum                   2 arrays       1.0e-07   3.0e-07            33  x" in lines
    assert "closest to its budget: y, 33.4 % of it" in lines
    assert says in lines[-4]
    assert "by themselves" in lines[-4]
    assert lines[-3:] == ["  4 of 9 arrays are past their budgets in all", "", "float32: FAILED"]
    nothing = report | {"largest": None, "others": [], "past_budget": 0, "passed": True}
    assert "closest" not in port_tables.compare_table(nothing)
    first = {"name": "x", "port": "y", "relative_l2": None, "shapes": {"expected": [1], "found": [1]}, "says": []}
    first |= {"inputs": {}, "between": [], "operation": {"file": "f", "formula": "a", "weights": []}}
    wrong = port_tables.compare_table(report | {"first": first})
    assert "closest" not in wrong
    assert "first wrong operation: x\n  the port's y\n  the port shows none of its inputs\n  look at:" in wrong


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"behind": 0}, "the port shows nothing that depends on a and b"),
        ({"first": "x", "first_error": 0.5}, "2 of 3 arrays after that still differ, first x (0.5, bound 0.1)"),
        ({"inherited": ["a"]}, "agree (at most 0.01, bound 0.1): the mistake was made before, or in a itself"),
        ({}, "all 3 arrays after that agree (at most 0.01, bound 0.1), and so does what was taken"),
    ],
)
def test_a_graft(changes, says):
    graft = {"names": ["a", "b"], "bound": 0.1, "behind": 3, "first": None, "past_bound": 2, "largest": 0.01}
    assert says in port_tables._graft(graft | {"inherited": []} | changes)[1]


@pytest.mark.parametrize(("count", "hidden"), [(12, 0), (14, 2)])
def test_the_statements_between_are_the_last_twelve(count, hidden):
    steps = [{"file": f"f{i}", "formula": "a + b", "weights": ["w", "v"] * (i == 13)} for i in range(count)]
    first = {"name": "x", "port": "y", "relative_l2": 0.5, "budget": 0.1, "alone": False, "between": steps}
    first |= {"shapes": {"expected": [1, 2], "found": [2, 1]}, "says": ["so"], "inputs": {"z": 1e-7}}
    lines = port_tables._first(first | {"operation": {"file": None, "formula": None, "weights": []}})
    assert lines[2:8] == [
        "  relative L2 0.5, budget 0.1", "  shape [2, 1] in the port, [1, 2] here", "  so", "  its inputs are right:",
        "    z (1.0e-07)", "  look at:",
    ]  # fmt: skip
    assert (lines[8].startswith("    2 statements before")) == bool(hidden)
    assert lines[8 + bool(hidden)] == f"    f{hidden}  a + b"
    assert lines[-1] == "    the image and the prompt that the model is given"
    assert ("    f13  a + b with w, v" in lines) == (count == 14)


def test_a_diagnosis():
    mistake = {"name": "silu", "place": "p", "own_error": None, "explained_error": None, "c": 0.987, "z": 31.6}
    report = {"compared": 9, "wrong": 0, "mistakes": [mistake], "in_float32": ["norm"], "unexplained": None}
    report |= {"undecidable": [{"name": "no-bos", "reason": "so"}], "verdict": "mistake", "dtype": "float16"}
    lines = diagnosis_table(report).splitlines()
    assert lines[0] == "9 arrays compared, judged as float16: 0 of them are past what rounding explains"
    assert lines[4] == "  smaller than rounding, which points its way: c = 0.99, z = 32"
    assert lines[-5:] == ["", "not decidable here:", "  no-bos: so", "", "verdict: mistake"]
    report["mistakes"] = [mistake | {"own_error": 0.5, "explained_error": 1e-7}]
    assert "  own error 5.0e-01; 1.0e-07 if the reference makes the mistake too" in diagnosis_table(report)
    for against, why in (("x", "x is not as it would be"), (None, "others do as well")):
        nearest = [{"name": "silu", "explains": 2, "contradicted_by": against}]
        table = diagnosis_table(report | {"unexplained": "y", "nearest": nearest})
        assert f"  silu explains 2 arrays, but {why}" in table.splitlines()
    logits = {
        "verdict": "mistake",
        "own_error": 0.25,
        "dtype": "float32",
        "rounding": 5e-6,
        "says": None,
        "nearest": [],
        "stored_as": None,
        "row_errors": [0.25],
    }
    lines = logits_table(logits | {"mistakes": report["mistakes"], "undecidable": report["undecidable"]}).splitlines()
    assert lines[0].endswith("are 2.5e-01 away from the right ones; rounding in float32 makes up to 5.0e-06")
    assert lines[-4:] == ["    with it, 1.0e-07 are left; c = 0.99", "", "these logits cannot show:", "    no-bos: so"]


def test_the_sheet_lies_as_its_sizes_say():
    """Two tokens and one head, whose whole weight is on the second of four patches, then on <bos>."""
    weight_S = np.array([1e-9, 1, 1e-9, 1e-9, 1e-9, 1e-9], np.float32)
    weights = [weight_S[None, None], np.roll(weight_S, 3)[None, None]]
    seen = Image.new("RGB", (56, 28), "white")
    tokenizer = type("Pieces", (), {"decode": lambda self, ids: "x", "piece": lambda self, id: "x"})()
    answer = type("Answer", (), {"token_ids": [5, 6]})()
    sheet = attention_sheet(seen, Attention(weights, 1, 4, 2), answer, tokenizer)
    top, row = MAP + LETTERS + 3 * GAP, MAP + BAR + LETTERS + 3 * GAP
    assert sheet.size == (WORDS + 2 * MAP + GAP, top + 2 * row)
    colour = [sheet.getpixel((WORDS + 2 * MAP - 2, top + token * row + 2)) for token in range(2)]
    assert colour == [ImageColor.getrgb(HEAT), (255, 255, 255)]
    bars = [sheet.getpixel((WORDS + MAP, top + token * row + MAP + 4)) for token in range(2)]
    assert bars == [ImageColor.getrgb(colour) for colour in SHARES[:2]]
    levels = np.array([0, 3, 128, 255], np.uint8)
    assert np.asarray(pale_of(Image.fromarray(levels[None]), (4, 1)))[0, :, 0].tolist() == [170, 171, 212, 255]


def test_a_text_on_the_sheet_is_escaped():
    sheets = [Image.new("RGB", (90, 20)) for _ in range(2)]
    for sheet, text in zip(sheets, ("x\u202e", "x\\u202e")):
        write(sheet, (0, 0), text, "white")
    assert sheets[0].tobytes() == sheets[1].tobytes()
