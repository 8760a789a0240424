"""Scenes as pictures, and where in the picture everything is."""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tiny.training.scenes import COLOURS

SUPERSAMPLING = 4
# The ground is made of so many cells in a row; the noise differs from cell to cell.
CELLS = 112
# Length of a cross's arms' ends and of a star's inner corners, as parts of the radius.
ARM, WAIST = 0.36, 0.45
# Rows and columns of a mask, stretched to its box; masks are cut out of so large a picture.
MASK_SIDE, FINE = 64, 448
# What `cover` calls the first text, and downwards the others; objects are 1, 2 and so on.
TEXT = 255


def draw(scene, side, supersampling=SUPERSAMPLING):
    """Draw a scene.

    Parameters
    ----------
    scene : tiny.training.scenes.Scene
    side : int
        Of the square picture, in pixels.
    supersampling : int
        Drawn so many times larger and then averaged: smooth edges.

    Returns
    -------
    PIL.Image.Image
    """
    large = side * supersampling
    picture = Image.fromarray(_ground(scene.ground)).resize((large, large), Image.Resampling.BILINEAR)
    for _, thing in _from_back_to_front(scene):
        _fill(picture, thing, _paint(thing))
    for text in scene.texts:
        _write(picture, text, _paint(text))
    return picture.reduce(supersampling)


def cover(scene, side, letters=False):
    """Say what each pixel shows.

    Parameters
    ----------
    scene : tiny.training.scenes.Scene
    side : int
    letters : bool
        Of the text, show the letters and not the box around it.

    Returns
    -------
    object_YX : uint8 array
        0 for the ground, 1 for the first object, and so on; `TEXT` for the box around the first text, and on downwards.
    """
    picture = Image.new("L", (side, side))
    for i, thing in _from_back_to_front(scene):
        _fill(picture, thing, i + 1)
    for i, text in enumerate(scene.texts):
        if letters:
            _write(picture, text, TEXT - i)
        else:
            top, left, bottom, right = (edge * side for edge in text_box(text))
            ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=TEXT - i)
    return np.asarray(picture)


def box_of(shown_YX):
    """Return the edges (top, left, bottom, right) of what a mask shows, as fractions of the side."""
    edges = []
    for axis in (1, 0):
        (shown,) = np.nonzero(shown_YX.any(axis=axis))
        edges.append((shown[0] / len(shown_YX), (shown[-1] + 1) / len(shown_YX)))
    (top, bottom), (left, right) = edges
    return float(top), float(left), float(bottom), float(right)


def shown(scene):
    """Return box and mask of each object, as far as it is not hidden.

    Parameters
    ----------
    scene : tiny.training.scenes.Scene

    Returns
    -------
    list of (box, mask_YX)
        Edges (top, left, bottom, right) as fractions of the side, and what of the box the object fills, from 0 to 1,
        on `MASK_SIDE` rows and columns.
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


def text_box(text):
    """Return the edges (top, left, bottom, right) of a text, as fractions of the side."""
    large = CELLS * SUPERSAMPLING
    left, top, font = _placed(text, large)
    box = font.getbbox(text.text, stroke_width=_stroke(text, large))
    return (top + box[1]) / large, (left + box[0]) / large, (top + box[3]) / large, (left + box[2]) / large


def letter_edges(text):
    """Return where each letter of a text begins, and where the last ends, as fractions of the side."""
    large = CELLS * SUPERSAMPLING
    left, _, font = _placed(text, large)
    return [(left + font.getlength(text.text[:i])) / large for i in range(len(text.text) + 1)]


def outline(thing):
    """Return the corners (x, y) of an object, as fractions of the side."""
    corners = []
    for reach, angle in _corners(thing.shape):
        x = thing.radius * thing.stretch * reach * math.cos(angle)
        y = thing.radius / thing.stretch * reach * math.sin(angle)
        cosine, sine = math.cos(thing.turn), math.sin(thing.turn)
        corners.append((thing.x + x * cosine - y * sine, thing.y + x * sine + y * cosine))
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


def _fill(picture, thing, paint):
    """Draw one object over what is there."""
    ImageDraw.Draw(picture).polygon([(x * picture.width, y * picture.height) for x, y in outline(thing)], fill=paint)


def _write(picture, text, paint):
    """Write a text over what is there."""
    left, top, font = _placed(text, picture.width)
    ImageDraw.Draw(picture).text((left, top), text.text, paint, font, stroke_width=_stroke(text, picture.width))


def _paint(thing):
    return tuple(min(max(level + change, 0), 255) for level, change in zip(COLOURS[thing.colour], thing.tint))


def _placed(text, side):
    """Return where to begin to write, and the font."""
    font = _font(round(text.size * side))
    left, top, right, bottom = font.getbbox(text.text)
    return text.x * side - (left + right) / 2, text.y * side - (top + bottom) / 2, font


def _stroke(text, side):
    """Return by how much letters are made bolder on each side."""
    return round(text.size * side / 40)


@functools.cache
def _font(height):
    return ImageFont.load_default(height)


def _ground(ground):
    """Return the ground as pixels (CELLS, CELLS, 3)."""
    along = (np.arange(CELLS) + 0.5) / CELLS - 0.5
    direction_YX = along[:, None] * math.sin(ground.direction) + along * math.cos(ground.direction)
    part_YX1 = np.clip(direction_YX / math.sqrt(2) + 0.5, 0, 1)[..., None]
    one, other = (np.array(colour, dtype=np.float32) for colour in ground.colours)
    level_YXC = one + part_YX1 * (other - one)
    if ground.noise:
        level_YXC = level_YXC + np.random.default_rng(ground.grain).normal(0, ground.noise, level_YXC.shape)
    return np.clip(level_YXC, 0, 255).round().astype(np.uint8)
