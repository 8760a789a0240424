"""The conformance set: what a port should make of difficult images and prompts; what it does instead is named."""

import json
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

import cli
import npgemma
from npgemma.errors import InputError
from npgemma.image import load_image
from npgemma.porting.arrays import read_arrays
from npgemma.porting.input_set import check_inputs, drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "new"
    assert cli.main(["conformance", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def compared(folder, tmp_path, capsys):
    """Write a port's inputs, in its own layout, and compare them."""

    def compared(port, *options):
        np.savez(tmp_path / "port.npz", **port)
        status = cli.main(["compare", str(tmp_path / "port.npz"), "--inputs", str(folder), "--json", *options])
        out, err = capsys.readouterr()
        return status, json.loads(out) if out else err

    return compared


def right(folder, program="hugging_face"):
    """What a right port writes, read from the files of the set by this package."""
    port = {}
    for file in sorted((folder / "images").iterdir()):
        port[f"pixels/{file.stem}"] = read_arrays(folder / "expected")[f"pixels/{program}/{file.stem}"]
    tokenizer = npgemma.load().tokenizer
    for i, prompt in enumerate(json.loads((folder / "prompts.json").read_text())):
        port[f"ids/{i}"] = np.array(tokenizer.prompt(prompt))
    return port


def test_a_right_port_passes_with_channels_first_and_a_batch(folder, compared):
    port = {
        name: array.transpose(2, 0, 1)[None] if array.ndim == 3 else array[None]
        for name, array in right(folder).items()
    }
    status, report = compared(port)
    assert (status, report["passed"]) == (0, True)
    assert len(report["inputs"]) == len(port) > 20
    status, report = compared(right(folder, "big_vision"))
    assert status == 1
    assert {row["says"].partition(": ")[2] for row in report["inputs"] if not row["right"]} == {
        "resized as big_vision does"
    }
    assert compared(right(folder, "big_vision"), "--resized-as", "big_vision")[0] == 0


def test_the_expected_pixels_are_those_of_the_model(folder):
    side = npgemma.load().config.vision.image_size
    for name in ("plain.png", "exif.jpg", "grey-16.png"):
        expected = read_arrays(folder / "expected")[f"pixels/hugging_face/{name.partition('.')[0]}"]
        assert np.array_equal(load_image(folder / "images" / name, side).pixels_BYXC[0], expected)


@pytest.mark.parametrize(
    ("name", "file", "mode", "says"),
    [
        ("pixels/exif", "exif.jpg", "RGB", "EXIF rotation or transparency is left out"),
        ("pixels/transparent", "transparent.png", "RGB", "EXIF rotation or transparency is left out"),
        ("pixels/palette-transparent", "palette-transparent.png", "RGB", "EXIF rotation or transparency is left out"),
    ],
)
def test_what_a_port_does_instead_is_named(folder, compared, name, file, mode, says):
    port, side = right(folder), npgemma.load().config.vision.image_size
    with Image.open(folder / "images" / file) as image:
        resized = image.convert(mode).resize((side, side), Image.Resampling.BICUBIC)
    port[name] = np.asarray(resized) / 127.5 - 1
    status, report = compared(port)
    [wrong] = [row for row in report["inputs"] if not row["right"]]
    assert (status, wrong["name"]) == (1, name)
    assert wrong["says"].endswith(says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x[..., ::-1], "channels are blue, green, red"),
        (lambda x: (x + 1) / 2, "values lie between 0 and 1"),
        (lambda x: (x + 1) * 127.5, "values lie between 0 and 255"),
        (lambda x: x[:, :-1], "expected the shape"),
        (lambda x: x + 0.5 / 127.5, "0.5 of 255 levels off"),
    ],
)
def test_changed_pixels(folder, compared, change, says):
    port = right(folder)
    port["pixels/plain"] = change(port["pixels/plain"])
    status, report = compared(port)
    [row] = [row for row in report["inputs"] if row["name"] == "pixels/plain"]
    assert says in row["says"]
    assert (status == 0) == row["right"] == ("0.5" in says)


def test_changed_ids_and_missing_inputs(folder, compared):
    port = right(folder)
    port["ids/1"] = port["ids/1"][:-1]
    del port["ids/2"], port["pixels/wide"]
    status, report = compared(port)
    wrong = {row["name"]: row["says"] for row in report["inputs"] if not row["right"]}
    assert (status, set(wrong)) == (1, {"ids/1", "ids/2", "pixels/wide"})
    assert wrong["ids/1"].startswith("expected [2, ")
    assert wrong["pixels/wide"] == wrong["ids/2"] == "not written"


@pytest.mark.parametrize("part", ["images/plain.png", "expected/pixels/big_vision/plain.npy", "expected"])
def test_a_set_that_is_not_complete(folder, tmp_path, part):
    shutil.copytree(folder, tmp_path / "set")
    (tmp_path / "set" / part).rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"set' is no complete set|expected': there is no such file"):
        check_inputs(tmp_path / "set", {})


def test_nothing_to_compare(compared):
    status, err = compared({"foreign": np.zeros(3)})
    assert status == 2
    assert "has none of the set's inputs" in err


def test_a_folder_with_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").write_text("x")
    assert cli.main(["conformance", "--out", str(tmp_path)]) == 2
    assert "new or an empty folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_the_images_stay_as_they_are():
    """Ports keep what they made of them. Colours of a palette are chosen by Pillow, and not held here."""
    images = {name: image for name, (image, _) in drawn().items() if not name.startswith("palette")}
    assert {name: (image.mode, image.size, zlib.crc32(image.tobytes())) for name, image in images.items()} == {
        "plain.png": ("RGB", (90, 60), 2401066409),
        "transparent.png": ("RGBA", (90, 60), 3955588279),
        "exif.jpg": ("RGB", (90, 60), 2401066409),
        "grey.png": ("L", (90, 60), 4231507233),
        "grey-alpha.png": ("LA", (90, 60), 303669599),
        "grey-16.png": ("I;16", (90, 60), 168174904),
        "one-bit.png": ("1", (90, 60), 2284481443),
        "column.png": ("RGB", (1, 60), 2599660202),
        "wide.png": ("RGB", (900, 30), 3417716707),
        "single.png": ("RGB", (1, 1), 3261731340),
    }
    assert drawn()["exif.jpg"][1]["exif"][274] == 6
