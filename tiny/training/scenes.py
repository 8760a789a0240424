"""What can be in a picture: up to four coloured shapes and sometimes a word, on light ground, chosen by a seed.

All lengths are fractions of the picture's side, so a scene can be drawn at any size (``drawing.py``).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

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
SHAPES = ("circle", "square", "triangle", "star", "cross")
# Distance from the middle to the farthest point, before a shape is stretched.
SIZES = {"small": (0.085, 0.12), "large": (0.17, 0.23)}
MOST_OBJECTS = 4
# With words in the picture there is less room.
MOST_BESIDE_TEXT = 3
# Objects are told from left to right; no two middles are so close that the order could be in doubt.
LEAST_STEP = 0.08
# Middles are at least this part of both radii apart. Objects overlap; of 6,104 in 3,000 scenes, the most hidden one
# lacked 24 % of its area.
LEAST_DISTANCE = 0.65
MARGIN = 0.01
# Shapes are turned by up to so much (radians), and made wider and lower or narrower and higher by up to this factor.
MOST_TURN, MOST_STRETCH = math.radians(15), 1.2
# Colours differ from picture to picture by up to so much in each channel.
TINT = 20

_WORDS = (
    "CAT DOG SUN SKY SEA ICE TEA CUP JAM PIE EGG FOX OWL BEE ANT BAT COW HEN PIG RAT BUS CAR VAN JET KEY BOX BAG BED "
    "PEN INK MAP TOY ZOO GYM SPA LAB HOT NEW OLD BIG TOP YES NO UP GO IN ON OK HI WET DRY RED FUN JOY SHOP STOP EXIT "
    "OPEN PUSH PULL SALE FREE QUIZ JAZZ TAXI BANK CAFE MENU PARK ROAD NEWS MILK CAKE FISH BIRD FROG DUCK LION WOLF "
    "BEAR MOON STAR TREE LEAF ROSE RAIN SNOW WIND FIRE HOME DOOR"
)
WORDS = tuple(_WORDS.split())
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Height of the letters' font.
TEXT_SIZES = (0.15, 0.24)
LONGEST_TEXT = 4
# The widest capital is this much wider than its font is high, with the gap after it.
LETTER_WIDTH = 0.9


@dataclass(frozen=True)
class Object:
    """One shape; lengths are fractions of the picture's side."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    turn: float = 0.0  # radians, clockwise as seen
    stretch: float = 1.0
    tint: tuple[int, int, int] = (0, 0, 0)

    @property
    def name(self):
        """What it is asked for by."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Text:
    """A word or a number; ``x`` and ``y`` are its middle, ``size`` the height of its font."""

    text: str
    colour: str
    x: float
    y: float
    size: float
    tint: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Ground:
    """What is behind: light, from one colour to another along a direction (radians), with noise."""

    colours: tuple[tuple[int, int, int], tuple[int, int, int]]
    direction: float = 0.0
    noise: float = 0.0  # standard deviation, in levels of 0 to 255
    grain: int = 0  # seed of the noise


@dataclass(frozen=True)
class Scene:
    """Objects from left to right, and texts, on a ground."""

    ground: Ground
    objects: tuple[Object, ...]
    texts: tuple[Text, ...] = ()


def scene(seed):
    """Return the scene of a seed.

    Parameters
    ----------
    seed : int

    Returns
    -------
    Scene
        One to `MOST_OBJECTS` objects, which differ in shape or in colour and lie within the picture; sometimes one
        text, which none of them touches.
    """
    randomness = np.random.default_rng(seed)
    ground = _ground(randomness)
    texts = (_text(randomness),) if randomness.random() < 0.4 else ()
    count = randomness.integers(1, (MOST_BESIDE_TEXT if texts else MOST_OBJECTS) + 1)
    while True:
        objects = []
        # One that does not fit is drawn again; after a while, all of them.
        for _ in range(40):
            thing = _object(randomness)
            if all(_fit(thing, other) for other in objects) and not any(_touches(thing, text) for text in texts):
                objects.append(thing)
            if len(objects) == count:
                return Scene(ground, tuple(sorted(objects, key=lambda thing: thing.x)), texts)


def page(seed):
    """Return a scene of text alone, line under line: to practise reading.

    Parameters
    ----------
    seed : int

    Returns
    -------
    Scene
    """
    randomness = np.random.default_rng(seed)
    ground, texts, top = _ground(randomness), [], 0.0
    while True:
        text = _text(randomness)
        half = _half_room(text.text, text.size)[1]
        if top + 2 * half > 1:
            return Scene(ground, (), tuple(texts))
        texts.append(replace(text, y=top + half))
        top += 2 * half


def _ground(randomness):
    kind = randomness.choice(["plain", "gradient", "noisy"])
    one, other = (_light(randomness) for _ in range(2))
    direction = randomness.uniform(0, 2 * math.pi) if kind == "gradient" else 0.0
    noise = randomness.uniform(3, 12) if kind == "noisy" else 0.0
    return Ground((one, other if kind == "gradient" else one), float(direction), float(noise), _integer(randomness))


def _light(randomness):
    return tuple(int(value) for value in randomness.integers(185, 256) + randomness.integers(-20, 1, 3))


def _text(randomness):
    kind = randomness.choice(["word", "letters", "number"])
    if kind == "word":
        text = str(randomness.choice(WORDS))
    elif kind == "letters":
        # No word at all: letters must be read, not guessed.
        text = "".join(randomness.choice(list(LETTERS), randomness.integers(2, LONGEST_TEXT + 1)))
    else:
        text = str(randomness.integers(10 ** randomness.integers(1, LONGEST_TEXT)))
    size = randomness.uniform(TEXT_SIZES[0], min(TEXT_SIZES[1], 0.9 / (LETTER_WIDTH * len(text))))
    x, y = (float(randomness.uniform(half, 1 - half)) for half in _half_room(text, size))
    return Text(text, _choice(randomness, COLOURS), x, y, float(size), _tint(randomness))


def _object(randomness):
    size = _choice(randomness, SIZES)
    radius, stretch = randomness.uniform(*SIZES[size]), MOST_STRETCH ** randomness.uniform(-1, 1)
    reach = radius * max(stretch, 1 / stretch) + MARGIN
    x, y = (float(value) for value in randomness.uniform(reach, 1 - reach, 2))
    shape, colour = _choice(randomness, SHAPES), _choice(randomness, COLOURS)
    turn = randomness.uniform(-MOST_TURN, MOST_TURN)
    return Object(shape, colour, size, x, y, float(radius), float(turn), float(stretch), _tint(randomness))


def _fit(one, other):
    distance = math.hypot(one.x - other.x, one.y - other.y)
    return (
        one.name != other.name
        and abs(one.x - other.x) >= LEAST_STEP
        and distance >= LEAST_DISTANCE * (one.radius + other.radius)
    )


def _touches(thing, text):
    reach = thing.radius * max(thing.stretch, 1 / thing.stretch)
    width, height = _half_room(text.text, text.size)
    return abs(thing.x - text.x) < width + reach and abs(thing.y - text.y) < height + reach


def _half_room(text, size):
    return LETTER_WIDTH * len(text) * size / 2 + MARGIN, size / 2 + MARGIN


def _tint(randomness):
    return tuple(int(value) for value in randomness.integers(-TINT, TINT + 1, 3))


def _choice(randomness, names):
    return str(randomness.choice(list(names)))


def _integer(randomness):
    return int(randomness.integers(2**31))
