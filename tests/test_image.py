"""image.py: every kind of image a person has, and files that are none."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support import bad_files

from npgemma.errors import InputError
from npgemma.image import load_pixels, open_image, upright_rgb

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def rgb(image):
    return np.asarray(upright_rgb(image))


def test_pixels_are_minus_one_to_one_exactly():
    """All 256 values as Hugging Face scales them: times 1/255 in float64, then (x - 0.5) / 0.5 in float32."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = load_pixels(Image.fromarray(values), 16)
    expected = ((values * (1 / 255)).astype(np.float32) - np.float32(0.5)) / np.float32(0.5)
    assert pixels.shape == (1, 16, 16, 3)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels[0, :, :, 0], expected)


def test_a_image_is_squashed_by_pillows_bicubic_filter():
    expected = np.asarray(Image.fromarray(COLOURS).resize((4, 4), Image.Resampling.BICUBIC)) / 127.5 - 1
    assert np.abs(load_pixels(COLOURS, 4)[0] - expected).max() < 1e-6


def test_transparent_images_stand_on_white():
    rgba = np.zeros((2, 3, 4), dtype=np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, [0, 128, 255]
    assert rgb(Image.fromarray(rgba))[0].tolist() == [[255, 255, 255], [227, 127, 127], [200, 0, 0]]


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 0
    assert rgb(image)[0].tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (5, 4))
    assert load_pixels(image, 8).shape == (1, 8, 8, 3)


def test_cmyk_black_is_black():
    assert rgb(Image.new("CMYK", (1, 1), (0, 0, 0, 255))).tolist() == [[[0, 0, 0]]]


def test_sixteen_bits_keep_their_range():
    """Pillow's own conversion makes everything over 255 white."""
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert rgb(Image.fromarray(values))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_dark_sixteen_bit_image_stays_dark():
    assert rgb(Image.fromarray(np.full((2, 2), 200, dtype=np.uint16))).max() == 1


def test_float_images_from_zero_to_one():
    assert rgb(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)))[0, :, 0].tolist() == [0, 128, 255]


def test_exif_rotation_is_undone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter clockwise
    Image.fromarray(COLOURS).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(rgb(open_image(tmp_path / "turned.png")), np.rot90(COLOURS, -1))


def test_damaged_exif_data_are_passed_over(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(tmp_path / "damaged.jpg", exif=exif, quality=95)
    content = (tmp_path / "damaged.jpg").read_bytes()
    start = content.index(b"Exif\0\0") + 6
    for damage in (b"\xff" * 8, b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x07"):
        (tmp_path / "damaged.jpg").write_bytes(content[:start] + damage + content[start + 8 :])
        assert load_pixels(tmp_path / "damaged.jpg", 14).shape == (1, 14, 14, 3)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert rgb(open_image(tmp_path / "moving.gif"))[0, 0].tolist() == [255, 0, 0]


def test_one_pixel():
    pixels = load_pixels(np.array([[[255, 0, 255]]], dtype=np.uint8), 7)
    assert np.array_equal(np.unique(pixels.reshape(-1, 3), axis=0), [[1, -1, 1]])


def test_a_path_an_image_and_an_array_are_the_same(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    expected = load_pixels(COLOURS, 5)
    assert np.array_equal(load_pixels(str(tmp_path / "a.png"), 5), expected)
    assert np.array_equal(load_pixels(tmp_path / "a.png", 5), expected)
    assert np.array_equal(load_pixels(Image.fromarray(COLOURS), 5), expected)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_that_are_no_images(array):
    with pytest.raises(InputError, match="uint8"):
        load_pixels(array, 4)


def test_files_that_are_no_images(tmp_path):
    for name, says in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=says):
            load_pixels(tmp_path / name, 14)


def png(depth, kind, pixels, transparent):
    """A PNG of two pixels, the first of which is the transparent one, written by the format's own rules."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 1, depth, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize(
    ("depth", "kind", "pixels", "transparent", "second"),
    [
        (16, 0, struct.pack(">HH", 100, 40000), struct.pack(">H", 100), (156, 156, 156)),
        (8, 0, bytes([7, 200]), struct.pack(">H", 7), (200, 200, 200)),
        (4, 0, bytes([0x3A]), struct.pack(">H", 3), (170, 170, 170)),
        (2, 0, bytes([0b01100000]), struct.pack(">H", 1), (170, 170, 170)),
        (1, 0, bytes([0b01000000]), struct.pack(">H", 0), (255, 255, 255)),
        (8, 2, bytes([1, 2, 3, 200, 100, 50]), struct.pack(">HHH", 1, 2, 3), (200, 100, 50)),
        (
            16,
            2,
            struct.pack(">6H", 300, 700, 900, 40000, 20000, 10000),
            struct.pack(">HHH", 300, 700, 900),
            (156, 78, 39),
        ),
    ],
)
def test_a_transparent_value_is_white_at_any_depth(tmp_path, depth, kind, pixels, transparent, second):
    (tmp_path / "x.png").write_bytes(png(depth, kind, pixels, transparent))
    image = upright_rgb(open_image(tmp_path / "x.png"))
    assert [image.getpixel((0, 0)), image.getpixel((1, 0))] == [(255, 255, 255), second]
