"""answer.py: boxes read from answers, and drawn."""

import numpy as np
import pytest
from PIL import Image

from npgemma.answer import COLOURS, Found, annotate, find_objects

SIZE = (100, 200)  # columns, rows


def test_the_order_is_top_left_bottom_right():
    [found] = find_objects("<loc0102><loc0205><loc0614><loc0921> cat", SIZE)
    assert found.label == "cat"
    assert found.box == pytest.approx((205 / 10.23, 102 / 5.115, 921 / 10.23, 614 / 5.115))


def test_several_objects_and_other_text():
    text = "here: <loc0000><loc0000><loc0500><loc0500> a cat ; <loc0001><loc0002><loc0003><loc0004> dog<eos> and more"
    assert [thing.label for thing in find_objects(text, SIZE)] == ["a cat", "dog"]


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
        "<loc0000><loc0000><loc9999><loc0900> out of the picture",
    ],
)
def test_what_is_no_box_is_left_out(text):
    assert find_objects(text, SIZE) == []


def test_boxes_are_drawn_where_they_are_and_the_picture_is_left_alone():
    picture = Image.new("RGB", (300, 300), "white")
    drawn = np.asarray(annotate(picture, [Found("cat", (50, 100, 250, 200)), Found("", (10, 10, 20, 20))]))
    colour = tuple(int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    rows, columns = np.nonzero((drawn == colour).all(axis=-1))
    assert (columns.min(), columns.max(), rows.max()) == (50, 250, 200)
    assert rows.min() < 100  # the label stands on the box
    assert tuple(drawn[150, 150]) == (255, 255, 255)
    assert np.asarray(picture).min() == 255


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (3000, 40)])
def test_pictures_of_any_size_can_be_drawn_on(size):
    assert annotate(Image.new("RGB", size), [Found("a long label", (0, 0, *size))]).size == size
