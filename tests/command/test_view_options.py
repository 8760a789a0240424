"""--top-logits, --show-attention, --save-image-as-seen and ``trace --list``."""

import json

import numpy as np
import pytest
from PIL import Image, ImageColor
from test_command import assert_refused
from test_mistake import run  # noqa: F401 a fixture

import npgemma
from conversion.safetensors_file import read
from npgemma.axes import suffix
from npgemma.command.attention_sheet import HEAT, MAP, heat_map
from npgemma.command.views import GRID

PROMPT = ("--prompt", "detect red circle ; blue square", "--max-new-tokens", "2")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_top_logits(run, backend):  # noqa: F811
    status, out, err = run(*PROMPT, "--backend", backend, "--top-logits", 3)
    assert (status, err) == (0, "")
    answer, *lines = out.splitlines()
    report = json.loads(run(*PROMPT, "--backend", backend, "--top-logits", 3, "--json")[1])
    assert report["text"] == answer
    assert [place[0]["id"] for place in report["top_logits"]] == report["token_ids"]
    assert len(lines) == len(report["token_ids"])
    for line, place in zip(lines, report["top_logits"]):
        assert len(place) == 3
        assert all(f"{one['text']!r} {100 * one['probability']:.2f} %" in line for one in place)
    assert "top_logits" not in json.loads(run(*PROMPT, "--json")[1])


def test_top_logits_of_several_images(run, tmp_path):  # noqa: F811
    grey = tmp_path / "grey.png"
    Image.new("RGB", (50, 50), "grey").save(grey)
    images = ("--image", npgemma.example_image(), grey, "--batch-size", 2, "--json", "--top-logits", 1)
    for line in run(*PROMPT, *images)[1].splitlines():
        report = json.loads(line)
        assert [place[0]["id"] for place in report["top_logits"]] == report["token_ids"]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_the_sheet_of_the_attention(run, backend, tmp_path):  # noqa: F811
    out = tmp_path / "attention.png"
    assert run(*PROMPT, "--backend", backend, "--show-attention", out)[::2] == (0, "")
    with Image.open(out) as sheet:
        assert sheet.height > 3 * MAP  # a row for each token, and the head
        # Somewhere in each row stands a patch with nearly all the weight.
        level = np.asarray(sheet.convert("RGB")).astype(int)
        near = np.abs(level - ImageColor.getrgb(HEAT)).max(axis=-1) < 60
        assert near[2 * MAP :].sum() > 2 * 100
    assert list(tmp_path.iterdir()) == [out]


def test_a_map_is_coloured_where_the_weight_is():
    """Half of the weight on one of four patches, all on the image; then next to none on the image."""
    pale = Image.new("RGB", (8, 8), "white")
    level = np.asarray(heat_map(pale, np.array([[0.5, 0.25], [0.25, 0.0]])))
    assert level[0, 0].tolist() == list(ImageColor.getrgb(HEAT))
    assert level[7, 7].tolist() == [255, 255, 255]
    assert level[0, 7, 2] == level[7, 0, 2] == 127
    assert np.asarray(heat_map(pale, np.array([[0.002, 0.001], [0.001, 0.0]]))).min() > 250


def test_several_images_of_one_prompt_lie_side_by_side(run, tmp_path):  # noqa: F811
    grey, seen, sheet = (tmp_path / name for name in ("grey.png", "seen.png", "sheet.png"))
    Image.new("RGB", (50, 30), (10, 20, 30)).save(grey)
    images = ("--images-per-prompt", 2, "--image", npgemma.example_image(), grey)
    assert run(*PROMPT, *images, "--save-image-as-seen", seen, "--show-attention", sheet)[0] == 0
    side = npgemma.load().config.vision.image_size
    with Image.open(seen) as image:
        assert image.size == (2 * side, side)
        assert image.getpixel((side + 5, 5)) == (10, 20, 30)
    with Image.open(sheet) as image:
        assert image.width > 2 * MAP * 4


def test_the_image_as_seen_can_be_enlarged_and_have_a_grid(run, tmp_path):  # noqa: F811
    exact, large = tmp_path / "exact.png", tmp_path / "large.png"
    assert run(*PROMPT, "--save-image-as-seen", exact)[0] == 0
    assert run(*PROMPT, "--save-image-as-seen", large, "--scale", 3, "--grid")[0] == 0
    seen, shown = np.asarray(Image.open(exact)), np.asarray(Image.open(large))
    assert shown.shape == (3 * seen.shape[0], 3 * seen.shape[1], 3)
    assert np.array_equal(shown[2::3, 2::3], seen)
    lines = (shown == GRID).all(axis=(1, 2))
    assert np.flatnonzero(lines).tolist() == list(range(0, len(shown), 3 * 14))
    assert_refused(run(*PROMPT, "--grid"), "--save-image-as-seen: add it")


def test_a_note_says_how_much_larger_a_small_image_is_drawn(run, tmp_path):  # noqa: F811
    small, out = tmp_path / "small.png", tmp_path / "out.png"
    with Image.open(npgemma.example_image()) as image:
        image.resize((100, 100)).save(small)
    assert "drawn 3 times as large" in run("--prompt", "detect red circle", "--image", small, "--annotate", out)[2]
    with Image.open(out) as drawn:
        assert drawn.size == (300, 300)


def test_what_cannot_be_shown_is_refused(run, tmp_path):  # noqa: F811
    out, example = tmp_path / "out.png", npgemma.example_image()
    assert_refused(run("--show-attention", out, "--annotate", out), "--show-attention would overwrite --annotate")
    link = tmp_path / "link.png"
    link.symlink_to(out)
    assert_refused(run("--show-attention", out, "--save-image-as-seen", link), "overwrite --show-attention")
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.png")
    assert_refused(run("--image", tmp_path / "photo.png", "--annotate", tmp_path / "photo.png"), "the image itself")
    assert_refused(run("--show-attention", "/nowhere/out.png"), "/nowhere/out.png")
    assert_refused(run("--save-image-as-seen", tmp_path / "out.xyz"), "out.png")
    assert_refused(run("--show-attention", out, "--image", example, example), "one image")
    assert_refused(run("--top-logits", "0"), "above 0")
    assert_refused(run("--top-logits", 1, "--backend", "torch", "--static"), "--static")
    assert not out.exists()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_listed_trace_is_the_written_one(run, backend, tmp_path):  # noqa: F811
    out = tmp_path / "trace.safetensors"
    options = ("trace", "--backend", backend, "--max-new-tokens", 2, "--only", "*/block.1/*")
    assert run(*options, "--out", out)[0] == 0
    rows = json.loads(run(*options, "--list", "--json")[1])
    written = read(out)
    assert [row["name"] for row in rows] == [tensor.name for tensor in written]
    for row, tensor in zip(rows, written):
        assert (row["shape"], row["dtype"]) == (list(tensor.array.shape), tensor.dtype)
        assert row["axes"] == suffix(row["name"].rpartition("/")[2])
        assert len(row["axes"]) == len(row["shape"])
    lines = run(*options, "--list")[1].splitlines()
    assert [line.split()[-1] for line in lines] == [row["name"] for row in rows]


def test_a_list_is_no_file(run, tmp_path):  # noqa: F811
    assert_refused(run("trace", "--list", "--out", tmp_path / "x"), "--list writes no file")
    assert_refused(run("trace", "--list", "--only", "nothing"), "no array matches")
    assert list(tmp_path.iterdir()) == []
