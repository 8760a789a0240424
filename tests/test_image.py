"""image.py: every kind of image a person has, and files that are none."""

import base64
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support import bad_files, chunk

from npgemma.errors import InputError
from npgemma.files import images
from npgemma.image import load_image, load_pixels, open_image, upright_rgb

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def rgb(image):
    return np.asarray(upright_rgb(image))


def stored(image, kind="PNG", **options):
    """Return the content of an image's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PNG = stored(Image.fromarray(COLOURS))


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


MODES = "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr LAB HSV I F I;16 I;16B"


@pytest.mark.parametrize("mode", MODES.split())
def test_every_mode_becomes_rgb_the_same_in_pieces(monkeypatch, mode):
    values = np.random.default_rng(1).integers(0, 256, 6 * 9 * 4).astype(np.uint8).tobytes()
    image = Image.frombytes(mode, (9, 6), values[: len(Image.new(mode, (9, 6)).tobytes())])
    whole = rgb(image)
    assert (whole.shape, whole.dtype) == ((6, 9, 3), np.uint8)
    monkeypatch.setattr(images, "PIECE", 4)
    assert np.array_equal(rgb(image), whole)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("CMYK", (1, 1), (0, 0, 0, 255)), [0]),  # black
        (Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)), [0, 1, 128, 255]),
        (Image.fromarray(np.full((1, 2), 200, dtype=np.uint16)), [1, 1]),  # dark stays dark
        (Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), [0, 128, 255]),
    ],
)
def test_values_keep_their_range(image, expected):
    """Pillow's own conversion makes everything over 255 white."""
    assert rgb(image)[0, :, 0].tolist() == expected


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


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_first_frame_of_an_animation(kind):
    """MPO is what many phones write: a JPEG with further images behind it."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("white", "black")]
    found = rgb(open_image(stored(frames[0], kind, save_all=True, append_images=frames[1:])))
    assert found.min() > 250


def test_one_pixel():
    pixels = load_pixels(np.array([[[255, 0, 255]]], dtype=np.uint8), 7)
    assert np.array_equal(np.unique(pixels.reshape(-1, 3), axis=0), [[1, -1, 1]])


def test_an_image_in_any_form_is_the_same(tmp_path):
    path, expected = tmp_path / "a.png", load_pixels(COLOURS, 5)
    path.write_bytes(PNG)
    ended = io.BytesIO(PNG)
    ended.seek(0, io.SEEK_END)
    address = f"DATA:image/png;base64,{base64.b64encode(PNG).decode().replace('+', '%2B')}"
    forms = [str(path), path, Image.fromarray(COLOURS), Image.open(path), PNG, bytearray(PNG), ended, address]
    for form in [*forms, COLOURS[::-1][::-1], np.asfortranarray(COLOURS)]:
        assert np.array_equal(load_pixels(form, 5), expected)
    with open(path, "rb") as file:
        assert np.array_equal(load_pixels(file, 5), expected)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 4, 3)), "uint8"),
        (np.zeros((4, 4), bool), "uint8"),
        (np.zeros((4, 4, 2), np.uint8), "uint8"),
        (np.zeros(4, np.uint8), "uint8"),
        (np.zeros((0, 4, 3), np.uint8), "uint8"),
        (np.broadcast_to(np.uint8(0), (10**6, 10**6, 3)), "120,000,000 pixels"),
        (Image.new("RGB", (10**6, 1)), "120,000,000 pixels"),  # Pillow resizes it with gigabytes
        (Image.new("RGB", (0, 5)), "no pixels"),
        (None, "found NoneType"),
        (io.StringIO("x"), "found str"),
        (b"x" * 300_000, "the image is not an image in a format"),
        ("data:image/png," + "x" * 9999, "base64"),
        ("data:image/png;base64," + "x" * 9999, "the image of a data: address is not"),
        ("https://example.org/" + "x" * 9999, "download"),
        ("a\0b", "no image"),
    ],
)
def test_what_is_no_image_is_said_and_not_shown(image, says):
    with pytest.raises(InputError, match=says) as error:
        load_pixels(image, 4)
    assert len(str(error.value)) < 500


def hostile():
    """Return files that would take minutes or gigabytes, or start another program, and what is said of them."""
    progressive = stored(Image.new("RGB", (1500, 1500)), "JPEG", progressive=True)
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: 65536, 323: 65536, 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    yield "scans.jpg", progressive[:-2] + progressive[progressive.rindex(b"\xff\xda") : -2] * 4000, "120,000,000 pixels"
    yield "tiles.tif", b"II*\0" + struct.pack("<IQH", 16, 0, len(tags)) + entries + bytes(4), "120,000,000 pixels"
    yield "text.ppm", b"P3 2500 2500 255\n", "120,000,000 pixels"
    yield "comments.ppm", b"P1 900 900\n" + b"#\n" * 20_000, "120,000,000 pixels"
    yield "comment.ppm", b"P6\n#" + b"x" * 9999, "too many parts"
    yield "program.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PNG, JPEG, WebP"
    yield "icon.png", stored(Image.new("RGB", (16, 16)), "ICO"), "PNG, JPEG, WebP"


def test_files_that_are_no_images(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_READS", 5000)
    os.mkfifo(tmp_path / "pipe.png")
    expected = bad_files(tmp_path) | {"pipe.png": "a pipe"}
    for name, content, expected[name] in hostile():
        (tmp_path / name).write_bytes(content)
    for name, says in expected.items():
        with pytest.raises(InputError, match=says) as error:
            load_pixels(tmp_path / name, 14)
        assert name in str(error.value)


def test_the_limit_of_pixels_can_be_changed():
    assert load_image(COLOURS, 5, max_pixels=256**2).size == (9, 6)
    with pytest.raises(InputError, match="--max-pixels"):
        load_image(COLOURS, 5, max_pixels=256**2 - 1)


@pytest.mark.parametrize("step", ["convert", "resize", "load"])
def test_an_image_that_does_not_fit_in_memory_is_named(tmp_path, monkeypatch, step):
    def fail(*_, **__):
        raise MemoryError

    (tmp_path / "a.png").write_bytes(stored(Image.new("RGBA", (4, 4))))
    monkeypatch.setattr(Image.Image, step, fail)
    with pytest.raises(InputError, match=r"a\.png' .*memory.*smaller"):
        load_pixels(tmp_path / "a.png", 4)


@pytest.mark.parametrize(
    ("name", "data", "turned"),
    [
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(1_600_000)), False),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>6</tiff:Orientation>", True),
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**8)), False),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(10**7)), False),
        (b"eXIf", b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4), True),
        (b"eXIf", b"no exif", False),
    ],
)
def test_of_what_stands_beside_pixels_the_orientation_alone_matters(name, data, turned):
    for place in (33, len(PNG) - 12):
        found = rgb(open_image(PNG[:place] + 2 * chunk(name, data) + PNG[place:]))
        assert np.array_equal(found, np.rot90(COLOURS, -1) if turned else COLOURS)


def png(depth, kind, pixels, transparent):
    """A PNG of two pixels, the first of which is the transparent one, written by the format's own rules."""
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
