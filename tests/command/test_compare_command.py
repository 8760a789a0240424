"""cli.py compare: its files, its exit statuses, and what it prints."""

import json
import pathlib
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import cli

IDS, LOGITS = "prefill.0/ids_BT", "prefill.0/logit_BV"
MAP = """
[["out"]]
ours = "{pass}/logit_BV"
axes = "V"
[["ids"]]
ours = "{pass}/ids_BT"
axes = "T"
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "trace.safetensors"
    assert cli.main(["trace", "--out", str(path), "--max-new-tokens", "1"]) == 0
    return path


@pytest.fixture
def compare(reference, capsys):
    def compare(port, *options, reference=reference):
        status = cli.main(["compare", str(port), "--reference", str(reference), *map(str, options)])
        out, err = capsys.readouterr()
        return status, out, err

    return compare


def test_a_trace_passes_against_itself(compare, reference):
    status, out, err = compare(reference)
    assert (status, err) == (0, "")
    assert out.startswith("coverage: ")
    assert out.endswith("float32: passed\n")


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors"])
def test_files_of_other_programs(compare, reference, tmp_path, kind):
    arrays = load_file(reference)
    port = {"out": arrays[LOGITS][0], "ids": arrays[IDS][0]}
    (tmp_path / "map.toml").write_text(MAP)
    place = tmp_path / f"port.{kind}"
    if kind == "npz":
        np.savez(place, **port)
    elif kind == "safetensors":
        save_file(port, place)
    else:
        place.mkdir()
        for name, array in port.items():
            np.save(place / f"{name}.npy", array)
    status, out, _ = compare(place, "--map", tmp_path / "map.toml", "--json")
    report = json.loads(out)
    assert (status, report["passed"], report["coverage"]["compared"]) == (0, True, 2)


def test_a_wrong_port_fails_in_json_that_every_reader_takes(compare, reference, tmp_path):
    arrays = load_file(reference)
    save_file({IDS: arrays[IDS] + 1}, tmp_path / "port.safetensors")
    status, out, _ = compare(tmp_path / "port.safetensors", "--json")
    report = json.loads(out, parse_constant=pytest.fail)
    assert (status, report["passed"], report["first"]["name"]) == (1, False, IDS)
    status, out, _ = compare(tmp_path / "port.safetensors")
    assert status == 1
    assert f"first wrong operation: {IDS}" in out
    assert out.endswith("FAILED\n")


def test_nothing_comparable(compare, tmp_path):
    save_file({"foreign": np.zeros(3)}, tmp_path / "port.safetensors")
    status, out, err = compare(tmp_path / "port.safetensors")
    assert (status, out) == (2, "")
    assert err.startswith("error: nothing to compare")
    status, out, _ = compare(tmp_path / "port.safetensors", "--check-map")
    assert status == 2
    assert "unknown: the port's that no rule knows: 1 arrays of 1 kinds\n     1 foreign\n" in out


def test_a_port_s_names_are_escaped_in_tables_and_exact_in_json(compare, reference, tmp_path):
    name = "\x1b[31m\u202e\n" + 300 * "y"
    save_file({IDS: load_file(reference)[IDS], name: np.zeros(3)}, tmp_path / "port.safetensors")
    assert json.loads(compare(tmp_path / "port.safetensors", "--check-map", "--json")[1])["unknown"] == [name]
    table = compare(tmp_path / "port.safetensors", "--check-map")[1]
    [line] = [line for line in table.splitlines() if "\\u001b[*m\\u202e\\u000a" in line]
    assert len(line) < 130
    assert "is a folder" in compare(tmp_path / "port.safetensors", "--map", "")[2]


def test_check_map_tells_what_is_mapped_and_what_is_not(compare, reference, tmp_path):
    arrays = load_file(reference)
    q = arrays["prefill.0/run_blocks.0/block.1/grouped_query_attention.0/rotate.0/x_BTNH"]
    save_file({IDS: arrays[IDS], "q": q[0].reshape(q.shape[1], -1)}, tmp_path / "port.safetensors")
    status, out, _ = compare(tmp_path / "port.safetensors", "--check-map", "--json")
    report = json.loads(out)
    assert status == 0
    assert report["mapped"] == {IDS: IDS}
    assert "prefill.0/embed_tokens.0/ids_BT" in report["known"]
    assert LOGITS in report["unseen"]
    assert report["unknown"] == ["q"]
    [suggestion] = report["suggestions"]
    assert suggestion["axes"] == "T(NH)"
    assert {key: report["counts"][key] for key in ("known", "unseen", "unknown")} == {
        key: len(report[key]) for key in ("known", "unseen", "unknown")
    }
    new = tmp_path / "new.toml"
    words = [tmp_path / "port.safetensors", "--write-map", new]
    assert compare(*words)[0] == 0
    out = compare(tmp_path / "port.safetensors", "--map", new)[1]
    assert out.startswith("coverage: 2 arrays of 2 kinds compared")
    assert out.endswith("float32: passed, as far as was compared: no logits were\n")
    assert "name a new file" in compare(*words)[2]


@pytest.mark.parametrize("port", ["missing.npz", "missing.txt"])
def test_files_that_are_not_there(compare, tmp_path, port):
    status, out, err = compare(tmp_path / port)
    assert (status, out) == (2, "")
    assert err.startswith("error: cannot read")


def test_every_kind_of_operation_is_beside_what_is_allowed(compare, reference):
    status, out, _ = compare(reference, "--json")
    report = json.loads(out)
    assert (status, report["judged_by"]) == (0, "own error")
    assert {"norm", "product", "activation", "rotation", "attention weights"} <= {
        row["kind"] for row in report["own_errors"]
    }
    assert all(0 < row["own_error"] < row["allowed"] for row in report["own_errors"])


def test_without_the_reference_s_checkpoint_arrays_are_compared_end_to_end(compare, reference):
    other = pathlib.Path(__file__).resolve().parents[1] / "golden" / "gemma2_hub"
    status, out, _ = compare(reference, "--checkpoint", other)
    assert status == 0
    assert "judged end to end, since the checkpoint of the reference is not at hand" in out
    status, out, err = compare(reference, "--checkpoint", other, "--graft", LOGITS)
    assert (status, out) == (2, "")
    assert "error: --graft runs the reference" in err


MID, OUT = (f"prefill.0/run_blocks.0/block.1/{name}_BTD" for name in ("mid", "out"))


def test_a_graft_tells_a_mistake_from_an_inherited_one(compare, reference, tmp_path):
    wrong = tmp_path / "port.safetensors"
    words = ["--mistake", "image-scaled", "--backend", "torch", "--max-new-tokens", "1"]
    assert cli.main(["trace", "--out", str(wrong), *words]) == 0
    status, out, _ = compare(wrong, "--graft", MID)
    assert status == 1
    assert re.search(rf"the port's {MID} in place of ours, all \d+ arrays after that agree \(at most .*before", out)
    status, out, _ = compare(wrong, "--graft", "prefill.0/embed_tokens.0/text_BTD")
    assert "still differ, first prefill.0/x_BSD" in out


def test_a_graft_of_a_right_array_says_that_nothing_passes_through_it(compare, reference):
    report = json.loads(compare(reference, "--graft", MID, "--graft", OUT, "--json")[1])["graft"]
    assert (report["inherited"], report["first"], report["past_bound"]) == ([], None, 0)
    assert report["behind"] > 20
    assert "no mistake passes through it" in compare(reference, "--graft", MID)[1]


def test_a_graft_in_a_step(compare, tmp_path):
    trace = tmp_path / "trace.safetensors"
    assert cli.main(["trace", "--out", str(trace), "--max-new-tokens", "2"]) == 0
    status, out, _ = compare(trace, "--graft", MID.replace("prefill.0", "step.0"), reference=trace)
    assert status == 0
    assert "no mistake passes through it" in out


@pytest.mark.parametrize(
    ("name", "says"), [("nothing", "there is no array 'nothing'"), (OUT, "the port does not show")]
)
def test_a_graft_that_cannot_be(compare, reference, tmp_path, name, says):
    save_file({IDS: load_file(reference)[IDS]}, tmp_path / "port.safetensors")
    status, out, err = compare(tmp_path / "port.safetensors", "--graft", name)
    assert (status, out) == (2, "")
    assert says in err


def test_a_trace_is_compared_on_the_prompt_that_it_tells(reference, capsys):
    """`trace` asks "caption en", which is not what ``compare`` asks by itself."""
    assert cli.main(["compare", str(reference)]) == 0
    assert cli.main(["compare", str(reference), "--prompt", "ocr"]) == 1
    out, _ = capsys.readouterr()
    assert "prompt: the port read 4 tokens" in out


def test_a_graft_reaches_what_is_made_of_the_array_under_another_name(compare, reference, tmp_path):
    """Queries are the result of a rotation, and attention's argument: three names of one array."""
    arrays, place = load_file(reference), "prefill.0/run_blocks.0/block.0/grouped_query_attention.0/"
    names = [f"{place}q_BTNH", f"{place}attend.0/score_BKGTS"]
    port = {name: arrays[name] for name in names}
    port[names[1]] = 2 * port[names[1]]
    # The grafted array itself, under its next name, says nothing of what is made of it.
    port[f"{place}attend.0/q_BTNH"] = port[names[0]]
    save_file(port, tmp_path / "port.safetensors")
    _, out, _ = compare(tmp_path / "port.safetensors", "--graft", names[0], "--json")
    told = json.loads(out)["graft"]
    assert (told["behind"], told["past_bound"], told["first"]) == (1, 1, names[1])
