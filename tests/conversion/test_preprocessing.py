"""Preprocessing as a folder's files say: followed, or refused; and the bilinear filter on exact pixels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from support import CONFIGS

import conversion
import npgemma
from conversion.preprocessing import read_preprocessing
from npgemma.errors import InputError
from npgemma.image import PUBLISHED, Preprocessing, load_image

CONFIG = CONFIGS["two key/value heads"]
SIDE = CONFIG.vision.image_size
FILES = ["preprocessor_config.json", "processor_config.json"]


@pytest.fixture
def saved(tmp_path):
    conversion.save(tmp_path, conversion.random_params(CONFIG, 0), CONFIG)
    return tmp_path


def say(folder, name="preprocessor_config.json", **values):
    document = json.loads((folder / "preprocessor_config.json").read_text()) | values
    (folder / name).write_text(json.dumps({"image_processor": document} if name.startswith("processor_") else document))


def read(folder, resize=None):
    return read_preprocessing(conversion.Source.of(folder), CONFIG, resize)


def test_what_is_published_is_the_default(saved):
    assert read(saved) == PUBLISHED
    (saved / "preprocessor_config.json").unlink()
    assert read(saved) == PUBLISHED
    (saved / "processor_config.json").write_text('{"processor_class": "PaliGemmaProcessor"}')
    assert read(saved) == PUBLISHED
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = load_image(values, 16).pixels_BYXC[0, ..., 0]
    assert np.array_equal(pixels, values.astype(np.float32) / np.float32(127.5) - 1)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"resample": 2}, Preprocessing(resample=2)),
        ({"image_mean": [0.1, 0.2, 0.3]}, Preprocessing(mean=(0.1, 0.2, 0.3))),
        ({"image_std": 0.25}, Preprocessing(deviation=(0.25,) * 3)),
        ({"rescale_factor": 1 / 127.5}, Preprocessing(factor=1 / 127.5)),
        ({"do_rescale": False}, Preprocessing(factor=1.0)),
        ({"do_normalize": False}, Preprocessing(mean=(0.0,) * 3, deviation=(1.0,) * 3)),
        ({"size": {"height": SIDE, "width": SIDE, "longest_edge": None}}, PUBLISHED),
        ({"do_convert_rgb": True, "do_center_crop": None, "resample": None}, PUBLISHED),
    ],
)
def test_what_can_be_followed_is_followed(saved, name, values, expected):
    say(saved, name, **values)
    assert read(saved) == expected


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "values",
    [
        {"size": {"height": 99, "width": 99}}, {"size": {"shortest_edge": SIDE}}, {"do_center_crop": True},
        {"do_pad": True}, {"do_resize": False}, {"image_processor_type": "CLIPImageProcessor"}, {"image_seq_length": 7},
        {"resample": 9}, {"resample": "x"}, {"resample": []}, {"image_mean": [0.5]}, {"image_mean": "x"},
        {"image_std": [0, 1, 1]}, {"image_std": {}}, {"rescale_factor": 0}, {"rescale_factor": []}, {"size": []},
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused(saved, name, values):
    say(saved, name, **values)
    with pytest.raises(InputError, match=name):
        conversion.read_checkpoint(saved)


def test_a_models_pixels_are_the_folders(saved):
    """Two models that differ in the file only see different pixels, and the option goes before the file."""
    image = Image.open(npgemma.example_image())
    say(saved, image_mean=[0.2, 0.3, 0.4], resample=2)
    model = npgemma.load(saved)
    values = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    expected = (values / np.float32(255) - np.float32([0.2, 0.3, 0.4])) / np.float32(0.5)
    np.testing.assert_allclose(model._loaded(image).pixels_BYXC[0], expected, atol=1e-6)
    assert npgemma.load(saved, resize="bicubic").preprocessing.resample == 3
    assert read(saved, "bicubic").mean == (0.2, 0.3, 0.4)
    with pytest.raises(InputError, match="bicubic or bilinear"):
        npgemma.load(saved, resize="nearest")


def by_hand(values, size):
    """Pillow's bilinear resize of one row: a triangle as wide as the step, weights of 22 bits, rounded."""
    step = len(values) / size
    wide, row = max(step, 1), []
    for i in range(size):
        centre = (i + 0.5) * step
        low, high = max(int(centre - wide + 0.5), 0), min(int(centre + wide + 0.5), len(values))
        weights = np.maximum(1 - np.abs((np.arange(low, high) - centre + 0.5) / wide), 0)
        whole = (weights / weights.sum() * 2**22 + 0.5).astype(int)
        row.append(np.clip((2**21 + (whole * values[low:high]).sum()) >> 22, 0, 255))
    return row


@pytest.mark.parametrize(("length", "size"), [(4, 2), (7, 3), (3, 8), (100, 28), (28, 28)])
def test_bilinear_on_exact_pixels(length, size):
    values = np.random.default_rng(length).integers(0, 256, (size, length)).astype(np.uint8)
    pixels = load_image(values, size, Preprocessing(resample=2)).pixels_BYXC[0, ..., 0]
    expected = np.array([by_hand(row.astype(int), size) for row in values])
    assert np.array_equal(np.round((pixels + 1) * 127.5), expected)


def test_bilinear_is_big_visions_up_to_rounding():
    """Antialiased bilinear resizing without rounding, as TensorFlow and torch do it: at most one level of 255 apart."""
    values = np.random.default_rng(0).integers(0, 256, (90, 70, 3)).astype(np.uint8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values).permute(2, 0, 1)[None].double(), (28, 28), mode="bilinear", antialias=True
    )[0].permute(1, 2, 0)
    found = (load_image(values, 28, Preprocessing(resample=2)).pixels_BYXC[0] + 1) * 127.5
    assert np.abs(found - expected.numpy()).max() <= 1.01
