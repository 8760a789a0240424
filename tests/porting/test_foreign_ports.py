"""Whatever a port or a trace holds is compared, or refused in a sentence."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import npgemma
from npgemma.command import main
from npgemma.errors import InputError
from npgemma.image import load_image
from npgemma.porting import Rule, compare, from_model, from_trace, read_arrays, read_map
from npgemma.porting.arrays import read_manifest
from npgemma.porting.coverage import cover

IDS, X, POSITION = "prefill.0/ids_BT", "prefill.0/x_BSD", "prefill.0/run_blocks.0/positions.0/position_BT"


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "trace.safetensors"
    assert main(["trace", "--out", str(path), "--max-new-tokens", "2"]) == 0
    return path


@pytest.fixture(scope="module")
def reference(trace):
    model, told = npgemma.load(), read_manifest(trace)
    image = load_image(npgemma.example_image(), model.config.vision.image_size)
    return from_model(model, image, told["ids"], told["answer"])


def test_a_trace_reads_as_it_was_written_and_a_part_of_it_can_be_a_reference(trace, reference, tmp_path):
    assert from_trace(trace).entries == reference.entries
    part = tmp_path / "part.safetensors"
    assert main(["trace", "--out", str(part), "--max-new-tokens", "2", "--only", "*[CD]"]) == 0
    assert main(["compare", str(trace), "--reference", str(part)]) == 0


@pytest.mark.parametrize("dtype", ["U1", "S1", "V4", "f4, i4", "O", "complex64", "M8[s]"])
def test_only_numbers_and_truth_values_are_arrays(reference, tmp_path, dtype):
    with pytest.raises(InputError, match="array x of the port should hold numbers"):
        compare(reference, {"x": np.zeros(1, dtype)})
    np.savez(tmp_path / "x.npz", x=np.zeros(1, dtype), y=np.zeros(1, ">f4"), z=np.zeros(1, np.longdouble))
    with pytest.raises(InputError, match=r"array x .*x\.npz"):
        read_arrays(tmp_path / "x.npz")
    assert [read_arrays(tmp_path / "x.npz", only=[name])[name].dtype for name in "yz"] == [np.float32, np.float64]
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(InputError, match=r"x\.npy' is a pipe"):
        read_arrays(tmp_path)


@pytest.mark.parametrize(
    ("row", "says"),
    [(np.nan, "found nan"), ([1, np.inf], "found inf"), ([1, 2.5], "found 2.5"), ([2.0**40], "found 1099511627776.0"),
     ([], "of shape"), ([[1, 2], [3, 4]], "of shape"), ([True], "found bool"), ([-1], "between 0 and"),
     ([10**6], "between 0 and")],
)  # fmt: skip
def test_tokens_that_are_none(reference, row, says):
    for name in (IDS, "step.0/ids_BT"):
        with pytest.raises(InputError, match=f"the port's {name} should .*{says}"):
            cover(reference, {name: np.array(row)})
    if "between" not in says:
        with pytest.raises(InputError, match=f"the port's token_ids should .*{says}"):
            compare(reference, {"token_ids": np.array(row), X: reference.arrays[X]})


def test_positions_and_ids_of_any_kind_of_number_are_compared(reference):
    position_BT, ids_BT = reference.arrays[POSITION], reference.arrays[IDS]
    assert compare(reference, {POSITION: position_BT.astype(np.uint8) + np.uint8(1)})["passed"]
    assert not compare(reference, {POSITION: np.full(position_BT.shape, np.nan)})["passed"]
    assert compare(reference, {"x": ids_BT.astype(np.uint16) + 1}, [Rule("x", IDS, offset=-1)])["passed"]


# What stands in a manifest, or in the entry of one array, and what is said of it.
KEYS = [({key: each}, key) for key in ("arrays", "checkpoint", "dtype", "ids", "answer") for each in (None, 5)]
TWICE = {"name": "prefill.0/run_blocks.0/x_BTD", "axes": "BTD"}
MANIFESTS = [
    (None, "has no manifest"), ("[]", "an object"), ("5", "an object"), ("NaN", "found nan"), ("null", "found null"),
    ("{", "JSON"), (1000 * "[" + 1000 * "]", "object|nested"), (f'{{"ids": [{5000 * "9"}]}}', "digits"),
    ({"ids": [[1]]}, r"ids\[0\]"), ({"answer": [float("inf")]}, r"answer\[0\]"), ({"format": 9}, "another format"),
    ({"dtype": "x"}, "unknown dtype"), ({"shape": [1, 72]}, "does not fit"),
    ({"name": None}, "name should be a text"), ({"axes": 5}, "axes should"), ({"same_as": []}, "same_as should"),
    ({"gauge": 1}, "gauge should"), ({"from": "x"}, "from should"),
    ({"axes": "BDS"}, "does not fit"), ({"name": "step.x/x_BSD"}, "does not fit"), (TWICE, "does not fit"),
]  # fmt: skip


def rewritten(trace, path, change):
    """Write a trace again with another manifest, other keys in it, or other keys in the entry of one array."""
    manifest = read_manifest(trace)
    [entry] = [each for each in manifest["arrays"] if each["name"] == X]
    if isinstance(change, dict):
        (manifest if change.keys() <= manifest.keys() else entry).update(change)
    text = json.dumps(manifest) if isinstance(change, dict) else change
    save_file({str(entry["name"]): load_file(trace)[X]} | load_file(trace), path, text and {"manifest": text})
    return path


@pytest.mark.parametrize(("change", "says"), KEYS + MANIFESTS)
def test_a_manifest_that_is_none(trace, tmp_path, change, says):
    with pytest.raises(InputError, match=f"manifest.*({says})"):
        from_trace(rewritten(trace, tmp_path / "x.safetensors", change))


@pytest.mark.parametrize("change", [{"ids": [-1]}, {"ids": []}, {"answer": [10**6]}, {"answer": 300 * [5]}])
def test_a_manifest_that_its_checkpoint_cannot_follow(trace, tmp_path, change):
    path = rewritten(trace, tmp_path / "x.safetensors", change)
    assert main(["compare", str(trace), "--reference", str(path)]) == 2


@pytest.mark.parametrize("text", ['"abc"', "null", "[[1], [2, 3]]", "[1e999]", f"[{5000 * '9'}]", "[]"])
def test_tokens_in_the_metadata_of_a_port(trace, tmp_path, capsys, text):
    save_file(load_file(trace), tmp_path / "x.safetensors", {"token_ids": text})
    assert main(["compare", str(tmp_path / "x.safetensors"), "--reference", str(trace)]) == 2
    assert "token_ids" in capsys.readouterr().err


def test_maps_extend_one_another_ten_times_at_most_and_read_names_in_linear_time(tmp_path):
    for i in range(11):
        (tmp_path / f"{i}.toml").write_text(f'extends = "{i + 1}.toml"\n[["x"]]\nours = "a/x_BTD"')
    with pytest.raises(InputError, match=r"10\.toml' extends itself, or nine others"):
        read_map(tmp_path / "0.toml")
    assert Rule("{a}{b}{c}{d}{e}x", "{pass}/x_BTD").match(499 * "1") is None
