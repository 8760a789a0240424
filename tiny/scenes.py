"""Pictures whose content is known: one to three coloured shapes on a plain light ground, drawn from a seed.

All lengths are fractions of the picture's side, so a scene can be drawn at any size.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

# Seeds that never meet: what a model is tested on, it has not been trained on.
TRAINING_SEEDS = range(1_000_000_000)
VALIDATION_SEEDS = range(1_000_000_000, 1_001_000_000)
HELD_OUT_SEEDS = range(1_001_000_000, 1_002_000_000)

COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 138, 20),
    "yellow": (250, 215, 40),
    "green": (45, 150, 70),
    "blue": (40, 90, 205),
    "purple": (130, 60, 170),
    "black": (35, 35, 38),
}
SHAPES = ("circle", "square", "triangle", "star")
# Distance from the middle to the farthest point.
SIZES = {"small": (0.085, 0.105), "large": (0.18, 0.22)}
MOST_OBJECTS = 3
# Objects are told from left to right; no two middles are so close that the order could be in doubt.
LEAST_STEP = 0.1
# Colours differ from picture to picture by up to so much in each channel.
TINT = 12
# Drawn so many times larger and then averaged: smooth edges.
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Object:
    """One shape; lengths are fractions of the picture's side."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    tint: tuple[int, int, int]

    def outline(self):
        """Return the corners (x, y) of a polygon; for a circle, two corners of the square around it."""
        if self.shape == "circle":
            return [(self.x - self.radius, self.y - self.radius), (self.x + self.radius, self.y + self.radius)]
        corners = {"square": 4, "triangle": 3, "star": 10}[self.shape]
        # A square stands on its side, the others on two points.
        start = math.pi / 4 if self.shape == "square" else -math.pi / 2
        points = []
        for i in range(corners):
            reach = self.radius * (0.45 if self.shape == "star" and i % 2 else 1)
            angle = start + 2 * math.pi * i / corners
            points.append((self.x + reach * math.cos(angle), self.y + reach * math.sin(angle)))
        return points

    def box(self):
        """Return the edges ``(top, left, bottom, right)``."""
        columns, rows = zip(*self.outline())
        return min(rows), min(columns), max(rows), max(columns)


@dataclass(frozen=True)
class Scene:
    """Objects from left to right on a plain ground."""

    ground: tuple[int, int, int]
    objects: tuple[Object, ...]


def scene(seed):
    """Return the scene of a seed.

    Parameters
    ----------
    seed : int

    Returns
    -------
    Scene
        Its objects differ in shape or in colour, lie within the picture and do not touch.
    """
    randomness = np.random.default_rng(seed)
    ground = tuple(int(value) for value in randomness.integers(205, 256) + randomness.integers(-8, 1, 3))
    count = randomness.integers(1, MOST_OBJECTS + 1)
    while True:
        objects = tuple(sorted((_object(randomness) for _ in range(count)), key=lambda thing: thing.x))
        if all(_apart(objects[i], objects[j]) for i in range(count) for j in range(i)):
            return Scene(ground, objects)


def _object(randomness):
    size = str(randomness.choice(list(SIZES)))
    radius = randomness.uniform(*SIZES[size])
    x, y = randomness.uniform(radius + 0.01, 0.99 - radius, 2)
    shape, colour = str(randomness.choice(SHAPES)), str(randomness.choice(list(COLOURS)))
    tint = tuple(int(value) for value in randomness.integers(-TINT, TINT + 1, 3))
    return Object(shape, colour, size, float(x), float(y), float(radius), tint)


def _apart(one, other):
    distance = math.hypot(one.x - other.x, one.y - other.y)
    return (
        (one.shape, one.colour) != (other.shape, other.colour)
        and abs(one.x - other.x) >= LEAST_STEP
        and distance >= one.radius + other.radius + 0.01
    )


def draw(scene, side):
    """Draw a scene.

    Parameters
    ----------
    scene : Scene
    side : int
        Of the square picture, in pixels.

    Returns
    -------
    PIL.Image.Image
    """
    large = side * SUPERSAMPLING
    picture = Image.new("RGB", (large, large), scene.ground)
    for thing in scene.objects:
        _fill(picture, thing, tuple(min(max(c + t, 0), 255) for c, t in zip(COLOURS[thing.colour], thing.tint)))
    return picture.reduce(SUPERSAMPLING)


def cover(scene, side):
    """Say which object each pixel shows.

    Parameters
    ----------
    scene : Scene
    side : int

    Returns
    -------
    object_YX : uint8 array
        0 for the ground, 1 for the first object, and so on.
    """
    picture = Image.new("L", (side, side))
    for i, thing in enumerate(scene.objects):
        _fill(picture, thing, i + 1)
    return np.asarray(picture)


def _fill(picture, thing, paint):
    """Draw one object over what is there."""
    points = [(x * picture.width, y * picture.height) for x, y in thing.outline()]
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if thing.shape == "circle" else pen.polygon)(points, fill=paint)
