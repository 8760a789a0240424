"""Draw an answer's boxes, masks and labels on the image."""

import bisect
import math

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from npgemma.answer import Detection
from npgemma.command.fonts import font_for
from npgemma.files.foreign import shown
from npgemma.files.reading import reading

# Told apart by most people who see colours differently (Okabe and Ito's palette).
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# How much of a mask's colour covers what is under it.
OPACITY = 0.5
# A colour that another object has counts as so much nearer to what lies beneath, of 442 between black and white.
TAKEN = 120
LEAST_SIDE = 240
# Of a label: letters, about, their least height in pixels, and places near its box that are tried; and pixels beneath
# an object that its colour is chosen by, about.
LETTERS, LEAST_HEIGHT, PLACES, SAMPLES = 80, 8, 100, 10_000
# Left, top, right, bottom.
Box = tuple[float, float, float, float]


def annotate(image: Image.Image, objects: list[Detection], font: str | None = None) -> Image.Image:
    """Draw boxes, masks and labels on a copy of an upright RGB image, enlarged a whole number of times if its longer
    side has less than `LEAST_SIDE` pixels, so that labels can be read.

    Each object has the colour that differs most from what lies beneath it, and a border of black or white, so that its
    edge is seen on any background. Labels stay within the image and beside each other as far as there is room. Their
    font is the file ``font``, or by default Pillow's own, or one of the system's that has a label's letters.
    """
    image, objects = _enlarged(image, objects)
    drawn, colours = image.copy(), choose_colours(image, objects)
    thickness = line_width(image.size)
    for detection, colour in zip(objects, colours):
        if detection.mask is not None:
            _draw_mask(drawn, detection.mask, colour, thickness)
    pen = ImageDraw.Draw(drawn)
    labels: list[Box] = []
    for detection, colour in zip(objects, colours):
        left, top, right, bottom = detection.box
        outside = (left - 1, top - 1, right + 1, bottom + 1)
        pen.rectangle(outside, outline=_beside(colour), width=thickness + 2)
        pen.rectangle(detection.box, outline=colour, width=thickness)
    # Last, so that no box crosses a label.
    for detection, colour in zip(objects, colours):
        if detection.label:
            labels.append(_draw_label(drawn, detection, colour, labels, font))
    return drawn


def _enlarged(image, objects):
    """Return a small image and its objects, each pixel enlarged so that labels can be read; a large one as it is."""
    times = -(-LEAST_SIDE // max(image.size))
    if times == 1:
        return image, objects
    larger = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    scaled = []
    for detection in objects:
        mask = None if detection.mask is None else detection.mask.repeat(times, axis=0).repeat(times, axis=1)
        scaled.append(Detection(detection.label, tuple(edge * times for edge in detection.box), mask))
    return larger, scaled


def line_width(size):
    """Return how thick lines are on an image of some size (columns, rows), in pixels."""
    return max(2, max(size) // 200)


def font_size(size):
    """Return the height of labels on an image of some size (columns, rows), in pixels."""
    return max(12, max(size) // 30)


def choose_colours(image, objects):
    """Return one of `COLOURS` for each object: far from what lies beneath it in the RGB image, and from the other
    objects' colours.
    """
    level_YXC, chosen = np.asarray(image), []
    for detection in objects:
        beneath_PC = _beneath(level_YXC, detection)
        far = {}
        for colour in COLOURS:
            distance_P = np.linalg.norm(beneath_PC - np.array(ImageColor.getrgb(colour)), axis=-1)
            far[colour] = distance_P.mean() - TAKEN * chosen.count(colour)
        chosen.append(max(far, key=far.get))
    return chosen


def _beneath(level_YXC, detection):
    """Return the pixels (any number, 3) that an object's mask covers; without one, those of its box. Of many, some."""
    mask = detection.mask
    if mask is None or not mask.any():
        left, top, right, bottom = (max(0, int(edge)) for edge in detection.box)
        level_YXC = level_YXC[top : max(bottom, top + 1), left : max(right, left + 1)]
        mask = np.ones(level_YXC.shape[:2], dtype=bool)
    step = math.isqrt(np.count_nonzero(mask) // SAMPLES) or 1
    beneath_PC = level_YXC[::step, ::step][mask[::step, ::step]]
    return beneath_PC if len(beneath_PC) else level_YXC[mask]


def _beside(colour):
    """Return black or white, whichever differs more from a colour.

    Examples
    --------
    >>> [_beside(level) for level in ("#7f7f7f", "#818181", "#D55E00")]
    ['white', 'black', 'white']
    """
    red, green, blue = ImageColor.getrgb(colour)
    # How light it seems to the eye, in 255ths (ITU-R BT.601).
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "white"


def _draw_mask(drawn, mask, colour, thickness):
    """Cover a mask half, and draw its edge: a line of the colour, with a line of black or white around it."""
    outside = max(1, thickness // 2)
    left, top, right, bottom = Image.fromarray(mask).getbbox() or (0, 0, 0, 0)
    left, top = max(0, left - outside), max(0, top - outside)
    inside_YX = mask[top : bottom + outside, left : right + outside]
    for covered_YX, level, paint in (
        (inside_YX, round(255 * OPACITY), colour),
        (_grown(inside_YX, outside) & ~inside_YX, 255, _beside(colour)),
        (_grown(~inside_YX, thickness) & inside_YX, 255, colour),
    ):
        drawn.paste(paint, (left, top), Image.fromarray(covered_YX.astype(np.uint8) * level))


def _grown(inside_YX, radius):
    """Return which pixels have one that is inside within ``radius`` rows and columns."""
    grown, width = np.pad(inside_YX, radius), 1
    while width < 2 * radius + 1:
        step = min(width, 2 * radius + 1 - width)
        grown = grown[step:] | grown[:-step]
        grown, width = grown[:, step:] | grown[:, :-step], width + step
    return grown


def _draw_label(drawn, detection, colour, others, font):
    """Write a label where it covers no other one; return the rectangle that it takes."""
    label, pen = shown(detection.label, LETTERS), ImageDraw.Draw(drawn)
    sizes = range(LEAST_HEIGHT, font_size(drawn.size) + 1)

    def extent(size):
        """Return how many columns and rows the label takes."""
        return [math.ceil(edge) for edge in pen.textbbox((0, 0), label, font=font_for(label, size, font)[0])[2:]]

    # A damaged font can fail at any letter.
    with reading(font, "a font that can draw a label", "name another one with --font"):
        fitting = bisect.bisect_right(sizes, drawn.width, key=lambda size: extent(size)[0])
        size = sizes[max(0, fitting - 1)]
        across, down = extent(size)
        place = place_label(detection.box, (across + 2, down + 2), drawn.size, others)
        pen.rectangle(place, fill=colour)
        pen.text((place[0] + 1, place[1] + 1), label, font=font_for(label, size, font)[0], fill=_beside(colour))
    return place


def place_label(box: Box, size: tuple[int, int], image_size: tuple[int, int], others: list[Box]) -> Box:
    """Return where a label of some size (columns, rows) goes: on its object's box, else in its top corner, under it or
    in its bottom corner, else nearest to it; where it covers other labels least, and within the image if it fits there.

    Examples
    --------
    >>> place_label((50, 40, 90, 80), (30, 12), (100, 100), [])
    (50, 28, 80, 40)
    >>> place_label((80, 0, 99, 80), (30, 12), (100, 100), [])
    (70, 0, 100, 12)
    """
    (left, top, _, bottom), (across, down), (columns, rows) = box, size, image_size
    left = max(0, min(left, columns - across))
    tops = [top - down, top, bottom, bottom - down]
    # Then rows of labels in the image, the nearest first.
    tops += sorted(range(0, max(1, rows - down + 1), down), key=lambda row: abs(row - top))[:PLACES]
    places = [(left, start, left + across, start + down) for start in tops if 0 <= start <= rows - down]
    places = places or [(left, 0, left + across, down)]
    place_P4, other_N4 = np.array(places)[:, None], np.array(others).reshape(-1, 4)
    shared_PN2 = np.minimum(place_P4[..., 2:], other_N4[:, 2:]) - np.maximum(place_P4[..., :2], other_N4[:, :2])
    return places[shared_PN2.clip(0).prod(axis=-1).sum(axis=-1).argmin()]
