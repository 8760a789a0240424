"""The conformance set: what a port should make of difficult images and prompts; what it does instead is named."""

import json
import shutil
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import cli
import npgemma
from npgemma.errors import InputError
from npgemma.image import load_image
from npgemma.porting.arrays import read_arrays
from npgemma.porting.input_set import check_inputs, drawn
from npgemma.porting.misreadings import NOT_WHOLE

SIDE = npgemma.load().config.vision.image_size


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
    assert (status, report["causes"]) == (1, ["resized as big_vision does"])
    assert [row["causes"] for row in report["inputs"] if not row["right"]] == 10 * [report["causes"]]
    assert compared(right(folder, "big_vision"), "--resized-as", "big_vision")[0] == 0
    in_float = interpolated(drawn(SIDE)["plain.png"][0], "bilinear", antialias=True) / 127.5 - 1
    _, report = compared({"pixels/plain": in_float}, "--resized-as", "big_vision")
    assert [row["causes"] for row in report["inputs"] if row["right"]] == [[NOT_WHOLE]]


def test_the_expected_pixels_are_those_of_the_model(folder):
    for name in ("plain.png", "exif.jpg", "grey-16.png"):
        expected = read_arrays(folder / "expected")[f"pixels/hugging_face/{name.partition('.')[0]}"]
        assert np.array_equal(load_image(folder / "images" / name, SIDE).pixels_BYXC[0], expected)


def resized(image, resample=Image.Resampling.BICUBIC, size=(SIDE, SIDE)):
    return np.asarray(image.convert("RGB").resize(size, resample))


def interpolated(image, mode, size=(SIDE, SIDE), **options):
    image_CYX = torch.tensor(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float()
    return torch.nn.functional.interpolate(image_CYX, size, mode=mode, **options)[0].permute(1, 2, 0).numpy()


LEFT_OUT, NO_ALPHA = "the EXIF rotation is left out", "transparency is left out"
OTHER, BILINEAR, ABOVE = "resized as big_vision does", Image.Resampling.BILINEAR, ((29, 0), (0, 0), (0, 0))
BLACK = Image.new("RGBA", drawn(SIDE)["plain.png"][0].size, "black")
MISREAD = [  # an image, how it is misread, and the causes that are named
    ("exif.jpg", resized, LEFT_OUT),
    ("exif.jpg", lambda x: resized(x, BILINEAR), LEFT_OUT, OTHER),
    ("exif.jpg", lambda x: resized(x)[..., ::-1], LEFT_OUT, "channels are blue, green, red"),
    ("transparent.png", resized, NO_ALPHA),
    ("transparent.png", lambda x: resized(Image.composite(x, BLACK, x)), "transparent parts are put on black"),
    ("grey-16.png", lambda x: resized(Image.fromarray(np.uint8(np.minimum(x, 255)))), "greys of 16 bits are cut off"),
    ("plain.png", lambda x: interpolated(x, "bilinear"), "resized bilinearly without antialiasing"),
    ("plain.png", lambda x: interpolated(x, "bicubic"), "resized bicubically without antialiasing"),
    ("plain.png", lambda x: interpolated(x, "bicubic").clip(0, 255), "resized bicubically without antialiasing"),
    ("plain.png", lambda x: interpolated(x, "nearest"), "resized to the nearest pixel"),
    ("plain.png", lambda x: interpolated(x, "bicubic", antialias=True), f"{NOT_WHOLE}, nor cut off at 0 and 255"),
    ("plain.png", lambda x: resized(x, size=(150, SIDE))[:, 19:131], "cropped to the middle"),
    ("plain.png", lambda x: np.asarray(ImageOps.pad(x, (SIDE, SIDE), color=(122, 116, 104))), "letterboxed"),
    ("plain.png", lambda x: np.pad(resized(x, BILINEAR, (SIDE, 83)), ABOVE), "letterboxed", OTHER),
]  # fmt: skip


@pytest.mark.parametrize(("file", "misread", "causes"), [(file, misread, causes) for file, misread, *causes in MISREAD])
def test_what_a_port_does_instead_is_named(folder, compared, file, misread, causes):
    port, name = right(folder), f"pixels/{file.partition('.')[0]}"
    with Image.open(folder / "images" / file) as image:
        port[name] = misread(image) / 127.5 - 1
    status, report = compared(port)
    [wrong] = [row for row in report["inputs"] if not row["right"]]
    assert (status, wrong["name"], len(wrong["causes"])) == (1, name, len(causes))
    assert all(cause in wrong["says"] for cause in causes)


FORMULAS = {
    "your pixels are (p + 1) / 2 of": lambda x: x / 255,
    "your pixels are 127.5 (p + 1) of": lambda x: x,
    "your pixels are x / 128 - 1 of": lambda x: x / 128 - 1,
    "normalised twice": lambda x: ((x / 127.5 - 1) - 0.5) / 0.5,
    "not divided by 255": lambda x: (x - 0.5) / 0.5,
}


@pytest.mark.parametrize(
    "cause", [*list(FORMULAS)[:1], *(pytest.param(cause, marks=pytest.mark.slow) for cause in list(FORMULAS)[1:])]
)
def test_what_all_images_have_in_common_is_said_once(folder, compared, cause):
    levels = {name: (array + 1) * 127.5 for name, array in right(folder).items() if name.startswith("pixels")}
    status, report = compared({name: FORMULAS[cause](array).astype(np.float32) for name, array in levels.items()})
    [said] = report["causes"]
    assert (status, cause in said) == (1, True)
    assert {tuple(row["causes"]) for row in report["inputs"] if row["name"] in levels} == {(said,)}
    assert not any(cause in row["says"] for row in report["inputs"])
    _, report = compared({name: 0.7 * (array / 127.5 - 1) for name, array in levels.items()})
    assert {tuple(row["causes"]) for row in report["inputs"]} == {()}
    _, report = compared({name: np.nan * array for name, array in levels.items()})
    assert {row["says"] for row in report["inputs"] if row["name"] in levels} == {"not finite"}


@pytest.mark.parametrize("formula", [lambda x: x - 1, lambda x: x + 1, lambda x: x - 0.5])
def test_all_pixels_a_little_off_are_no_rounding(folder, compared, formula):
    port = right(folder)
    port |= {
        name: (formula((array + 1) * 127.5) / 127.5 - 1).astype(np.float32)
        for name, array in port.items()
        if name.startswith("pixels/")
    }
    status, report = compared(port)
    assert status == 1
    assert sum("on average" in row["says"] for row in report["inputs"]) > 8


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
    images = {name: image for name, (image, _) in drawn(112).items() if not name.startswith("palette")}
    about = [(name, image.mode, image.size, zlib.crc32(image.tobytes())) for name, image in images.items()]
    assert zlib.crc32(repr(about).encode()) == 3426969066, about
