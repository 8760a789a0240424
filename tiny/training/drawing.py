"""Scenes as pictures, and where in the picture everything is."""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tiny.training.scenes import Scene

SUPERSAMPLING = 4
# The background is made of so many cells in a row and in a column; the noise differs from cell to cell.
CELLS = 112
# Clutter: cells in a row of each layer, from coarse to fine, and the standard deviation of the coarsest.
CLUTTER, CLUTTER_LEVELS = (3, 6, 14, 30), 60
# Length of a cross's arms' ends and of a star's inner corners, as parts of the radius.
ARM, WAIST = 0.36, 0.45
# Rows and columns of a mask, stretched to its box; masks are cut out of so large a picture.
MASK_SIDE, FINE = 64, 448
# What `cover` calls the first text, and downwards the others; objects are 1, 2 and so on.
TEXT = 255


def draw(scene: Scene, side: int, supersampling: int = SUPERSAMPLING) -> Image.Image:
    """Draw a scene as wide and high as its aspect says, with the area of a square of ``side`` pixels.

    It is drawn ``supersampling`` times larger and then averaged: smooth edges.
    """
    width, height = size_of(scene.aspect, side)
    large = width * supersampling, height * supersampling
    picture = Image.fromarray(_background(scene.background, scene.aspect)).resize(large, Image.Resampling.BILINEAR)
    for _, thing in _from_back_to_front(scene):
        _fill(picture, thing, scene.aspect, thing.paint)
    for text in scene.texts:
        _write(picture, text, scene.aspect, text.paint)
    return picture.reduce(supersampling)


def picture_for(scene, side):
    """Draw a scene for a model that squeezes pictures into so many pixels a side; what is squeezed is drawn finer."""
    return draw(scene, side) if scene.aspect == 1 else draw(scene, 2 * side, SUPERSAMPLING // 2)


def size_of(aspect, side):
    """Return width and height of a picture in pixels, with the area of a square of so many pixels a side."""
    return round(side * math.sqrt(aspect)), round(side / math.sqrt(aspect))


def cover(scene: Scene, side: int, letters: bool = False):
    """Say what each pixel shows of the picture, squeezed into a square as the model squeezes it.

    0 is the background, 1 the first object, and so on; `TEXT` is the box around the first text (or its letters), and on
    downwards.
    """
    picture = Image.new("L", (side, side))
    for i, thing in _from_back_to_front(scene):
        _fill(picture, thing, scene.aspect, i + 1)
    for i, text in enumerate(scene.texts):
        if letters:
            written = Image.new("L", size_of(scene.aspect, side))
            _write(written, text, scene.aspect, 255)
            picture.paste(TEXT - i, mask=written.resize((side, side)).point(lambda level: 255 * (level > 127)))
        else:
            top, left, bottom, right = (edge * side for edge in text_box(text, scene.aspect))
            ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=TEXT - i)
    return np.asarray(picture)


def box_of(shown_YX):
    """Return the edges (top, left, bottom, right) of what a mask shows, as fractions of its height and width."""
    edges = []
    for axis in (1, 0):
        along = shown_YX.any(axis=axis)
        (shown,) = np.nonzero(along)
        edges.append((shown[0] / len(along), (shown[-1] + 1) / len(along)))
    (top, bottom), (left, right) = edges
    return float(top), float(left), float(bottom), float(right)


def shown(scene: Scene):
    """Return box and mask of each object, as far as it is not hidden.

    Edges (top, left, bottom, right) are fractions of the height and the width; the mask is what of the box the object
    fills, from 0 to 1, on `MASK_SIDE` rows and columns.
    """
    object_YX = cover(scene, FINE)
    found = []
    for i in range(len(scene.objects)):
        shown_YX = object_YX == i + 1
        box = top, left, bottom, right = box_of(shown_YX)
        picture = Image.fromarray(shown_YX.astype(np.float32))
        edges = [edge * FINE for edge in (left, top, right, bottom)]
        mask = picture.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BILINEAR, edges)
        found.append((box, np.asarray(mask)))
    return found


def text_box(text, aspect):
    """Return the edges (top, left, bottom, right) of a text, as fractions of the height and the width."""
    width, height = large = size_of(aspect, CELLS * SUPERSAMPLING)
    left, top, font = _placed(text, large)
    box = font.getbbox(text.text, stroke_width=_stroke(font))
    return (top + box[1]) / height, (left + box[0]) / width, (top + box[3]) / height, (left + box[2]) / width


def letter_edges(text, aspect):
    """Return where each letter of a text begins, and where the last ends, as fractions of the width."""
    large = size_of(aspect, CELLS * SUPERSAMPLING)
    left, _, font = _placed(text, large)
    return [(left + font.getlength(text.text[:i])) / large[0] for i in range(len(text.text) + 1)]


def outline(thing, aspect):
    """Return the corners (x, y) of an object, as fractions of the width and the height."""
    corners, root = [], math.sqrt(aspect)
    for reach, angle in _corners(thing.shape):
        x = thing.radius * thing.stretch * reach * math.cos(angle)
        y = thing.radius / thing.stretch * reach * math.sin(angle)
        cosine, sine = math.cos(thing.turn), math.sin(thing.turn)
        corners.append((thing.x + (x * cosine - y * sine) / root, thing.y + (x * sine + y * cosine) * root))
    return corners


@functools.cache
def _corners(shape):
    """Return distance from the middle (of 1) and angle of each corner; a circle has very many."""
    if shape == "cross":
        end, inner = math.atan(ARM), math.sqrt(2) * ARM / math.hypot(1, ARM)
        turns = [k * math.pi / 2 for k in range(4)]
        return [c for t in turns for c in ((1, t - end), (1, t + end), (inner, t + math.pi / 4))]
    count = {"circle": 60, "square": 4, "triangle": 3, "star": 10}[shape]
    # A square stands on its side, the others on two points.
    start = math.pi / 4 if shape == "square" else -math.pi / 2
    reach = [WAIST if shape == "star" and i % 2 else 1 for i in range(count)]
    return [(reach[i], start + 2 * math.pi * i / count) for i in range(count)]


def _from_back_to_front(scene):
    """Return objects with their numbers: what is small is in front, so that no object hides most of another."""
    return sorted(enumerate(scene.objects), key=lambda numbered: -numbered[1].radius)


def _fill(picture, thing, aspect, paint):
    """Draw one object over what is there."""
    corners = [(x * picture.width, y * picture.height) for x, y in outline(thing, aspect)]
    ImageDraw.Draw(picture).polygon(corners, fill=paint)


def _write(picture, text, aspect, paint):
    """Write a text over what is there."""
    left, top, font = _placed(text, picture.size)
    ImageDraw.Draw(picture).text((left, top), text.text, paint, font, stroke_width=_stroke(font))


def _placed(text, size):
    """Return where in a picture of some size (width, height) to begin to write, and the font."""
    width, height = size
    font = _font(round(text.size * math.sqrt(width * height)))
    left, top, right, bottom = font.getbbox(text.text)
    return text.x * width - (left + right) / 2, text.y * height - (top + bottom) / 2, font


def _stroke(font):
    """Return by how much letters are made bolder on each side."""
    return round(font.size / 40)


@functools.cache
def _font(height):
    return ImageFont.load_default(height)


def _background(background, aspect):
    """Return the background as pixels (rows, columns, 3), about `CELLS` of each."""
    width, height = size_of(aspect, CELLS)
    x_X, y_Y = ((np.arange(cells) + 0.5) / CELLS for cells in (width, height))
    part_YX1 = _part(background, x_X - x_X.mean(), y_Y - y_Y.mean())[..., None]
    one, other = (np.array(colour, dtype=np.float32) for colour in background.colours)
    level_YXC = one + part_YX1 * (other - one)
    if background.kind == "clutter":
        level_YXC = level_YXC + _clutter(background.grain, width, height)
    if background.noise:
        level_YXC = level_YXC + np.random.default_rng(background.grain).normal(0, background.noise, level_YXC.shape)
    return np.clip(level_YXC, 0, 255).round().astype(np.uint8)


def _part(background, x_X, y_Y):
    """Return how much of the second colour is where, from 0 to 1; places are fractions of the side, from the middle."""
    along_YX = y_Y[:, None] * math.sin(background.direction) + x_X * math.cos(background.direction)
    if background.kind == "gradient":
        reach = np.abs(along_YX).max()
        return along_YX / (2 * reach) + 0.5
    if background.kind == "striped":
        return (along_YX / background.period) % 1 < 0.5
    if background.kind == "checked":
        return ((x_X // background.period) + (y_Y // background.period)[:, None]) % 2
    if background.kind == "blotched":
        level_YX = _smooth(np.random.default_rng(background.grain), 8, len(x_X), len(y_Y))
        return np.clip(0.5 + level_YX, 0, 1)
    return np.zeros((len(y_Y), len(x_X)))


def _smooth(randomness, cells, width, height):
    """Return noise (height, width) of mean 0 and about standard deviation 1 that changes within so many cells."""
    noise = Image.fromarray(randomness.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))


def _clutter(grain, width, height):
    """Return what a photograph of nothing known might hold, as changes of level: coarse and fine, in all colours."""
    randomness = np.random.default_rng(grain)
    layers = [
        CLUTTER_LEVELS / (1 + i) * _smooth(randomness, cells, width, height)
        for i, cells in enumerate(CLUTTER)
        for _ in range(3)
    ]
    return np.stack([sum(layers[channel::3]) for channel in range(3)], axis=-1)
