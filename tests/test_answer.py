"""answer.py and annotate.py: boxes and masks read from answers, and drawn."""

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageColor, ImageFilter, ImageFont

from conversion.codebook import CODES, layout, read_codebook
from npgemma.answer import Detection, as_json, find_objects, mask_lengths, place_mask
from npgemma.command import annotate as drawing
from npgemma.command import fonts
from npgemma.command.annotate import annotate, choose_colours, place_label
from npgemma.command.image_files import mask_name, write_masks
from npgemma.segmentation import decode_masks

SIZE = (100, 200)  # columns, rows


def test_the_order_is_top_left_bottom_right():
    [found] = find_objects("<loc0102><loc0205><loc0614><loc0921> cat", SIZE)
    assert found.label == "cat"
    assert found.box == pytest.approx((205 / 10.23, 102 / 5.115, 921 / 10.23, 614 / 5.115))


def test_several_objects_and_other_text():
    text = "here: <loc0000><loc0000><loc0500><loc0500> a cat ; <loc0001><loc0002><loc0003><loc0004> dog<eos> and more"
    assert [detection.label for detection in find_objects(text, SIZE)] == ["a cat", "dog"]


def test_what_was_encoded_is_decoded_within_half_a_location():
    """The encoder of big_vision: round(fraction * 1023)."""
    edges = np.random.default_rng(0).random((50, 2, 2)).cumsum(axis=1)
    edges /= edges.max() + 1e-9
    for (top, left), (bottom, right) in edges:
        text = "".join(f"<loc{round(edge * 1023):04}>" for edge in (top, left, bottom, right)) + " x"
        [found] = find_objects(text, (1, 1))
        assert found.box == pytest.approx((left, top, right, bottom), abs=0.5 / 1023 + 1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        "<loc0001><loc0002><loc0003> three only",
        "<loc0500><loc0000><loc0500><loc0900> no height",
        "<loc0500><loc0900><loc0600><loc0100> right of itself",
        "<loc0000><loc0000><loc9999><loc0900> out of the image",
    ],
)
def test_what_is_no_box_is_left_out(text):
    assert find_objects(text, SIZE) == []


def test_boxes_are_drawn_where_they_are_and_the_image_is_left_alone():
    image = Image.new("RGB", (300, 300), "white")
    detections = [Detection("cat", (50, 100, 250, 200)), Detection("", (10, 10, 20, 20))]
    drawn = np.asarray(annotate(image, detections))
    colour = ImageColor.getrgb(choose_colours(image, detections)[0])
    rows, columns = np.nonzero((drawn == colour).all(axis=-1))
    assert (columns.min(), columns.max(), rows.max()) == (50, 250, 200)
    assert rows.min() < 100  # the label stands on the box
    assert tuple(drawn[150, 150]) == (255, 255, 255)
    assert np.asarray(image).min() == 255


def test_a_box_has_a_line_of_black_or_white_on_either_side():
    image, objects = Image.new("RGB", (300, 300), "grey"), [Detection("", (50, 100, 250, 200))]
    drawn, colour = annotate(image, objects), choose_colours(image, objects)[0]
    names = {ImageColor.getrgb(colour): "c", ImageColor.getrgb(drawing._beside(colour)): "b", (128, 128, 128): "."}
    across = "".join(names[drawn.getpixel((x, 150))] for x in range(300))
    down = "".join(names[drawn.getpixel((150, y))] for y in range(300))
    assert (across.strip("."), across.index("b")) == ("bccb" + "." * 195 + "bccb", 49)
    assert (down.strip("."), down.index("b")) == ("bccb" + "." * 95 + "bccb", 99)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (3000, 40)])
def test_images_of_any_size_can_be_drawn_on(size):
    drawn = annotate(
        Image.new("RGB", size), [Detection("a long label", (0, 0, *size), np.ones(size[::-1], dtype=bool))]
    )
    times = drawn.width // size[0]
    assert drawn.size == (times * size[0], times * size[1])
    assert max(drawn.size) >= 240
    assert times == 1 or max(size) < 240


@pytest.mark.parametrize("background", ["black", "white", "#D61E1E", "#0072B2", "#808080", "#E69F00"])
def test_a_mask_can_be_seen_on_any_background(background):
    """Inside and at its edge, it differs from what lies beneath by a sixth of the way from black to white."""
    mask = np.zeros((300, 300), dtype=bool)
    mask[100:200, 60:190] = True
    image = Image.new("RGB", (300, 300), background)
    drawn = np.asarray(annotate(image, [Detection("", (60, 100, 190, 200), mask)])).astype(float)
    differs = np.linalg.norm(drawn - np.array(ImageColor.getrgb(background)), axis=-1)
    assert differs[110:190, 70:180].min() > 442 / 6
    # The edge is a line of the whole colour, and another one beside it.
    assert differs[150, 60] > 150
    assert np.linalg.norm(drawn[150, 60] - drawn[150, 58]) > 442 / 6


def painted(mask, background="white", box=(0, 0, 1, 1)):
    """Draw a mask alone, two pixels thick; return the image, and its colour with that of the line around it."""
    image = Image.new("RGB", (300, 300), background)
    drawn, colour = image.copy(), choose_colours(image, [Detection("", box, mask)])[0]
    drawing._draw_mask(drawn, mask, colour, 2)
    return np.asarray(drawn), ImageColor.getrgb(colour), ImageColor.getrgb(drawing._beside(colour))


def test_a_mask_has_an_edge_of_two_pixels_inside_and_one_outside():
    mask = np.zeros((300, 300), dtype=bool)
    mask[100:200, 60:90] = True
    drawn, colour, beside = painted(mask)
    row = [tuple(map(int, level)) for level in drawn[150]]
    assert row[58:63] == [(255,) * 3, beside, colour, colour, row[75]]
    assert row[87:92] == [row[75], colour, colour, beside, (255,) * 3]
    assert np.allclose(row[75], (np.array(colour) + 255) / 2, atol=1)
    column = [tuple(map(int, level)) for level in drawn[:, 75]]
    assert column[98:103] == [(255,) * 3, beside, colour, colour, row[75]]


@pytest.mark.parametrize("thickness", [1, 2, 5, 20])
def test_a_mask_is_drawn_as_by_filters_of_3_by_3_pixels(thickness):
    """The largest of these makes a mask one pixel wider, the smallest one narrower."""
    for left, share in ((0, 1), (80, 1), (80, 0.5), (0, 0.99), (80, 0)):
        mask, drawn, expected = np.zeros((200, 250), dtype=bool), *(Image.new("RGB", (250, 200)) for _ in range(2))
        mask[left : left + 90, left : left + 99] = np.random.default_rng(0).random((90, 99)) < share
        narrow = wide = whole = Image.fromarray(mask).convert("L")
        for i in range(thickness):
            narrow = narrow.filter(ImageFilter.MinFilter(3))
            wide = wide.filter(ImageFilter.MaxFilter(3)) if i < max(1, thickness // 2) else wide
        expected.paste("red", (0, 0), whole.point(lambda level: level * 128 // 255))
        expected.paste(drawing._beside("red"), (0, 0), ImageChops.subtract(wide, whole))
        expected.paste("red", (0, 0), ImageChops.subtract(whole, narrow))
        drawing._draw_mask(drawn, mask, "red", thickness)
        assert drawn == expected


def test_a_label_is_drawn_on_one_line_and_soon():
    image = Image.new("RGB", (900, 600), "grey")
    drawn = [annotate(image, [Detection(label, (9, 99, 800, 500))]) for label in ("a\n\x1b", r"a\u000a\u001b")]
    assert drawn[0] == drawn[1]
    annotate(image, [Detection("\U000f0000猫" * 50_000, (9, 99, 800, 500))])


def test_colours_are_those_beneath_the_mask_or_the_box():
    """Black left of the middle, white right of it."""
    image = Image.fromarray(np.repeat(np.repeat([[[0], [255]]], 30, 0), 3, 2).repeat(30, 1).astype(np.uint8))
    mask = np.zeros((30, 60), dtype=bool)
    mask[:, 30:] = True
    level_YXC = np.asarray(image)
    assert drawing._beneath(level_YXC, Detection("", (0, 0, 60, 30), mask)).min() == 255
    assert drawing._beneath(level_YXC, Detection("", (0, 0, 60, 30), mask & False)).shape == (60 * 30, 3)
    assert drawing._beneath(level_YXC, Detection("", (-5, -5, 30, 2), None)).shape == (2 * 30, 3)
    assert drawing._beneath(level_YXC, Detection("", (29, 1, 29.5, 1.5), None)).tolist() == [[0, 0, 0]]
    assert drawing._beneath(level_YXC, Detection("", (30, 1, 30.5, 1.5), None)).tolist() == [[255, 255, 255]]


def test_what_is_drawn_grows_with_the_image():
    assert [drawing.line_width((1, side)) for side in (599, 600, 1000)] == [2, 3, 5]
    assert [drawing.font_size((side, 1)) for side in (389, 390, 600)] == [12, 13, 20]
    for side, times in ((119, 3), (120, 2), (239, 2), (240, 1)):
        objects = [Detection("x", (0, 1, 2, 3), np.ones((4, side), dtype=bool))]
        image, [found] = drawing._enlarged(Image.new("RGB", (side, 4)), objects)
        assert image.size == (times * side, times * 4) == found.mask.shape[::-1]
        assert found.box == (0, times, 2 * times, 3 * times)
    for level, beside in ((128, "white"), (129, "black")):
        assert drawing._beside(f"rgb({level}, {level}, {level})") == beside


def test_an_object_takes_another_colour_unless_it_is_far_better():
    """The farthest colour is taken, where each object that has one already counts as 120 nearer."""
    image = Image.new("RGB", (300, 300), "black")
    level = np.array([ImageColor.getrgb(colour) for colour in drawing.COLOURS])
    far, chosen = np.linalg.norm(level, axis=1), []
    for _ in range(12):
        taken = np.array([chosen.count(colour) for colour in drawing.COLOURS])
        chosen.append(drawing.COLOURS[int((far - 120 * taken).argmax())])
    assert choose_colours(image, [Detection("", (0, 0, 9, 9))] * 12) == chosen


def test_labels_are_cut_where_file_names_would_be_too_long():
    assert mask_name("i" * 99 + ".png", 1, "a" * 80 + "b") == "i" * 99 + "-1-" + "a" * 80 + ".png"
    assert mask_name("i" * 101 + ".png", 12, "x") == "i" * 100 + "-12-x.png"


def test_objects_have_colours_of_their_own():
    image = Image.new("RGB", (300, 300), "white")
    detections = [Detection(str(i), (i * 30, 0, i * 30 + 20, 40)) for i in range(4)]
    assert len(set(choose_colours(image, detections))) == 4


def test_labels_stay_inside_and_beside_each_other():
    """Boxes at every edge, and ten at the same place."""
    image = Image.new("RGB", (400, 300))
    boxes = [(390, 0, 399, 20), (0, 290, 9, 299), (395, 280, 400, 300), *[(100, 100, 160, 140)] * 10]
    taken = []
    for box in boxes:
        place = place_label(box, (90, 16), image.size, taken)
        assert place[0] >= 0
        assert place[1] >= 0
        assert place[2] <= 400
        assert place[3] <= 300
        for other in taken:
            apart = place[2] <= other[0] or other[2] <= place[0] or place[3] <= other[1] or other[3] <= place[1]
            assert apart, (place, other)
        taken.append(place)


def test_letters_that_no_font_has_are_named(capsys, monkeypatch):
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ())
    assert fonts.missing_letters(ImageFont.load_default(20), "red circle") == ""
    fonts.note_missing(["red circle", "кот"], 20)
    assert capsys.readouterr().err.count("note: ") == 1
    assert fonts.font_for("кот ab", 20)[1] == "кот"


def test_a_font_of_the_system_is_used_where_it_has_more(monkeypatch, tmp_path):
    """Pillow's own font as a file of the system's, after a file that is no font."""
    broken, other = tmp_path / "broken.ttf", tmp_path / "other.ttf"
    for path in (broken, other):
        path.write_bytes(b"no font")
    tried, real = [], ImageFont.truetype
    monkeypatch.setattr(fonts, "_system_fonts", lambda: (str(broken), str(other)))
    monkeypatch.setattr(fonts, "missing_letters", lambda font, text: "" if font == "other" else "x")

    def opened(file, *size, **settings):
        if isinstance(file, str):
            tried.append(file)
        return "other" if file == str(other) else real(file, *size, **settings)

    monkeypatch.setattr(ImageFont, "truetype", opened)
    assert fonts.font_for("x", 20) == ("other", "")
    assert tried == [str(broken), str(other)]


@pytest.fixture
def mask_params(tmp_path):
    randomness = np.random.default_rng(0)
    arrays = {name: randomness.normal(0, 0.5, shape).astype("f4") for name, shape in layout(16, 64).items()}
    np.savez(tmp_path / "vae-oid.npz", **arrays)
    return read_codebook(tmp_path / "vae-oid.npz")


def segment_text(codes, box="<loc0102><loc0205><loc0614><loc0921>"):
    return box + "".join(f"<seg{code:03}>" for code in codes) + " cat"


def test_a_mask_fills_its_box(mask_params):
    codes = np.random.default_rng(4).integers(0, CODES, 16)
    [found] = find_objects(segment_text(codes), SIZE, mask_params)
    assert found.label == "cat"
    assert found.mask.shape == (200, 100)
    left, top, right, bottom = (round(edge) for edge in found.box)
    assert not found.mask[:top].any()
    assert not found.mask[:, :left].any()
    stretched = Image.fromarray(decode_masks(codes[None], mask_params)[0]).resize((right - left, bottom - top), 2)
    np.testing.assert_array_equal(found.mask[top:bottom, left:right], np.asarray(stretched) > 0)
    assert 0 < found.mask.sum() < (right - left) * (bottom - top)


def test_without_a_codebook_or_with_fewer_codes_there_is_a_box_alone(mask_params):
    [found] = find_objects(segment_text(range(16)), SIZE)
    assert (found.label, found.mask) == ("cat", None)
    for count in (1, 8, 15, 17, 32):
        [found] = find_objects(segment_text([3] * count), SIZE, mask_params)
        assert (found.label, found.mask) == ("cat", None)
        assert mask_lengths(segment_text([3] * count)) == [count]
    assert [detection.mask for detection in find_objects(segment_text([*range(15), 128]), SIZE, mask_params)] == [None]


def test_several_masks_are_read(mask_params):
    text = segment_text(range(16)) + " ; " + segment_text(range(1, 17))
    assert [detection.mask is not None for detection in find_objects(text, SIZE, mask_params)] == [True, True]


@pytest.mark.parametrize("box", [(0, 0, 100, 200), (99.7, 199.8, 100, 200), (10.2, 20.1, 10.3, 20.2), (0, 0, 0.1, 0.1)])
def test_a_mask_has_at_least_one_pixel_and_stays_inside(box):
    assert place_mask(np.ones((64, 64)), box, SIZE).sum() >= 1
    assert not place_mask(-np.ones((64, 64)), box, SIZE).any()


def test_json_says_masks_as_coco_does():
    mask = np.random.default_rng(0).random((5, 7)) > 0.5
    for inside in (mask, ~mask, mask | True, mask & False):
        said = as_json(Detection("x", (0, 0, 1, 1), inside))["mask"]
        rows, columns = said["size"]
        values = np.repeat(np.arange(len(said["counts"])) % 2, said["counts"])
        np.testing.assert_array_equal(values.reshape(columns, rows).T.astype(bool), inside)


def test_masks_are_drawn_half_transparent_and_written(tmp_path):
    mask = np.zeros((300, 300), dtype=bool)
    mask[100:200, 60:90] = True
    image = Image.new("RGB", (300, 300), "white")
    detections = [Detection("a/cat", (50, 50, 250, 250), mask), Detection("dog", (0, 0, 9, 9))]
    drawn = np.asarray(annotate(image, detections))
    colour = np.array(ImageColor.getrgb(choose_colours(image, detections)[0]))
    np.testing.assert_allclose(drawn[150, 75], (colour + 255) / 2, atol=1)
    assert tuple(drawn[150, 120]) == (255, 255, 255)
    [path] = write_masks(tmp_path / "made", "/images/photo.jpg", detections)
    assert path == str(tmp_path / "made" / "photo-1-a-cat.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("L")) == 255, mask)


@pytest.mark.parametrize(
    "label", ["a/b", "..", "x" * 400, "猫" * 100, "con:aux?*|<>", "\x00\n\t", "", "-", "é\u0301" * 90]
)
def test_any_label_makes_a_file_name(tmp_path, label):
    mask = np.ones((4, 4), dtype=bool)
    image = "i" * 240 + ".png"
    [path] = write_masks(tmp_path, image, [Detection(label, (0, 0, 4, 4), mask)])
    name = mask_name(image, 1, label)
    assert path == str(tmp_path / name)
    assert (tmp_path / name).exists()
    assert len(name.encode()) <= 200


def test_without_a_mask_no_folder_is_made(tmp_path):
    assert write_masks(tmp_path / "masks", "a.png", [Detection("x", (0, 0, 1, 1))]) == []
    assert not (tmp_path / "masks").exists()
