"""What can be in a picture: up to four coloured shapes and sometimes a word, on any background, chosen by a seed.

Pictures are up to three times as wide as high, or as high as wide; the model squeezes each into its square. Places
(x, y) are fractions of the picture's width and height. Lengths are fractions of its *side*, which is that of the square
with the same area, so that a circle is a circle in the picture, whatever the model sees of it. A scene can be drawn at
any size (``drawing.py``).
"""

import colorsys
import math
from dataclasses import dataclass, replace

import numpy as np

# Seeds that never meet: what a model is tested on, it has not been trained on.
TRAINING_SEEDS = range(1_000_000_000)
VALIDATION_SEEDS = range(1_000_000_000, 1_001_000_000)
HELD_OUT_SEEDS = range(1_001_000_000, 1_002_000_000)

# What each name of a colour stands for: mixtures of any two of these. The first is the only one in the light world.
COLOURS = {
    "red": ((214, 40, 40), (255, 0, 0), (200, 20, 60)),
    "orange": ((245, 138, 20), (255, 165, 0), (255, 120, 0)),
    "yellow": ((250, 215, 40), (255, 255, 0), (255, 235, 90)),
    "green": ((45, 150, 70), (0, 128, 0), (0, 255, 0), (90, 200, 90)),
    "blue": ((40, 90, 205), (0, 0, 255), (70, 150, 255)),
    "purple": ((130, 60, 170), (128, 0, 128), (170, 50, 240)),
    "black": ((35, 35, 38), (0, 0, 0)),
    "white": ((250, 250, 250), (255, 255, 255)),
    "grey": ((128, 128, 128), (105, 105, 110), (160, 160, 160)),
}
LIGHT_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "black")
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
# Colours differ from thing to thing by up to so much in each channel: in the light world, and elsewhere.
LIGHT_TINT, TINT = 20, 10
# The colour of a thing is at least so far from each colour of its background, in RGB, where black and white are 442
# apart.
LEAST_CONTRAST = 80
# Width divided by height is at most this, and at least its inverse.
MOST_ASPECT = 3.0
BACKGROUNDS = ("plain", "gradient", "noisy", "striped", "checked", "blotched")
# How often a scene is one of the light world, which is all that the first embedded checkpoint knew; is square; shows no
# shapes at all.
LIGHT_PART, SQUARE_PART, EMPTY_PART = 0.25, 0.4, 0.05
# How often a scene has a text.
TEXT_PART = 0.4

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
    """One shape; ``x`` and ``y`` are its middle, ``radius`` its reach, ``paint`` its colour in levels of 0 to 255."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    turn: float = 0.0  # radians, clockwise as seen
    stretch: float = 1.0
    paint: tuple[int, int, int] = (0, 0, 0)

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
    paint: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Background:
    """What is behind: one of `BACKGROUNDS`, made of two colours; or "clutter", which has nothing before it."""

    colours: tuple[tuple[int, int, int], tuple[int, int, int]]
    kind: str = "plain"
    direction: float = 0.0  # of a gradient or of stripes: radians
    period: float = 1.0  # of stripes and checks: a fraction of the side
    noise: float = 0.0  # standard deviation, in levels of 0 to 255
    grain: int = 0  # seed of noise, blotches and clutter

    @property
    def lightness(self):
        """Return "light", "middle" or "dark"."""
        mean = np.mean(self.colours)
        return "light" if mean > 170 else "middle" if mean > 85 else "dark"


@dataclass(frozen=True)
class Scene:
    """Objects from left to right, and texts, on a background; ``aspect`` is the picture's width over its height."""

    background: Background
    objects: tuple[Object, ...]
    texts: tuple[Text, ...] = ()
    aspect: float = 1.0


def scene(seed: int, text_part: float = TEXT_PART) -> Scene:
    """Return the scene of a seed, in training with a text as often as ``text_part``; the world is that of `TEXT_PART`.

    Up to `MOST_OBJECTS` objects differ in shape or in colour, lie within the picture and differ from the background;
    sometimes there is one text, which none of them touches. Few scenes show no object, some of these only clutter.
    """
    randomness = np.random.default_rng(seed)
    if randomness.random() < LIGHT_PART:
        return _light_scene(randomness, text_part)
    aspect = _aspect(randomness)
    empty = randomness.random() < EMPTY_PART
    background = _background(randomness, clutter=empty and randomness.random() < 0.5)
    written = randomness.random() < text_part and background.kind != "clutter"
    texts = (_text(randomness, background, aspect),) if written else ()
    if empty:
        return Scene(background, (), texts, aspect)
    return _with_objects(randomness, Scene(background, (), texts, aspect), _object)


def light_scene(seed):
    """Return a scene of the light world: square, on a light background, in seven colours, of one shade each."""
    return _light_scene(np.random.default_rng([seed, 1]))


def _light_scene(randomness, text_part=TEXT_PART):
    background = _light_background(randomness)
    texts = (_text(randomness, background, 1.0, light=True),) if randomness.random() < text_part else ()
    return _with_objects(randomness, Scene(background, (), texts), _light_object)


def _with_objects(randomness, scene, make):
    """Put objects into a scene that has none."""
    count = randomness.integers(1, (MOST_BESIDE_TEXT if scene.texts else MOST_OBJECTS) + 1)
    while True:
        objects = []
        # One that does not fit is drawn again; after a while, all of them.
        for _ in range(40):
            thing = make(randomness, scene)
            if all(_fit(thing, other, scene.aspect) for other in objects) and not any(
                _touches(thing, text, scene.aspect) for text in scene.texts
            ):
                objects.append(thing)
            if len(objects) == count:
                return replace(scene, objects=tuple(sorted(objects, key=lambda thing: thing.x)))


def page(seed: int, aspects: tuple[float, float] | None = None) -> Scene:
    """Return a scene of text alone, line under line: to practise reading.

    Its aspect is chosen between two powers of `MOST_ASPECT`, since squeezed letters are the hard ones, unless it is of
    the light world; by default it is that of any scene.
    """
    randomness = np.random.default_rng(seed)
    light = randomness.random() < LIGHT_PART
    background = _light_background(randomness) if light else _background(randomness)
    aspect, texts, top = 1.0 if light else _aspect(randomness), [], 0.0
    if aspects and not light:
        aspect = float(MOST_ASPECT ** randomness.uniform(*aspects))
    while True:
        text = _text(randomness, background, aspect, light)
        half = _half_room(text.text, text.size, aspect)[1]
        if top + 2 * half > 1:
            return Scene(background, (), tuple(texts), aspect)
        texts.append(replace(text, y=top + half))
        top += 2 * half


def _aspect(randomness):
    if randomness.random() < SQUARE_PART:
        return 1.0
    return float(MOST_ASPECT ** randomness.uniform(-1, 1))


def _light_background(randomness):
    kind = str(randomness.choice(["plain", "gradient", "noisy"]))
    one, other = (_light(randomness) for _ in range(2))
    direction = randomness.uniform(0, 2 * math.pi)
    noise = randomness.uniform(3, 12) if kind == "noisy" else 0.0
    colours = one, other if kind == "gradient" else one
    return Background(colours, kind, float(direction), 1.0, float(noise), _integer(randomness))


def _light(randomness):
    return tuple(int(value) for value in randomness.integers(185, 256) + randomness.integers(-20, 1, 3))


def _background(randomness, clutter=False):
    """Return a background of any colours; what it is textured with is near its own colour."""
    kind = "clutter" if clutter else str(randomness.choice(BACKGROUNDS))
    one = _any_colour(randomness)
    far = {"plain": 0, "noisy": 0, "gradient": 90}.get(kind, 40)
    other = tuple(int(min(max(level + randomness.integers(-far, far + 1), 0), 255)) for level in one)
    noise = randomness.uniform(3, 14) if kind == "noisy" or randomness.random() < 0.15 else 0.0
    direction, period = randomness.uniform(0, 2 * math.pi), randomness.uniform(0.05, 0.3)
    return Background((one, other), kind, float(direction), float(period), float(noise), _integer(randomness))


def _any_colour(randomness):
    """Return a colour as backgrounds have it: often black, white or grey, otherwise of any hue and lightness."""
    kind = randomness.random()
    if kind < 0.15:
        return ((0, 0, 0), (255, 255, 255), (30, 30, 30), (128, 128, 128))[randomness.integers(4)]
    if kind < 0.5:
        levels = randomness.integers(0, 256) + randomness.integers(-20, 21, 3)
        return tuple(int(level) for level in levels.clip(0, 255))
    hue, saturation, value = randomness.random(), randomness.uniform(0.1, 1), randomness.uniform(0.1, 1)
    return tuple(round(255 * level) for level in colorsys.hsv_to_rgb(hue, saturation, value))


def _text(randomness, background, aspect, light=False):
    kind = randomness.choice(["word", "letters", "number"])
    if kind == "word":
        text = str(randomness.choice(WORDS))
    elif kind == "letters":
        # No word at all: letters must be read, not guessed.
        text = "".join(randomness.choice(list(LETTERS), randomness.integers(2, LONGEST_TEXT + 1)))
    else:
        text = str(randomness.integers(10 ** randomness.integers(1, LONGEST_TEXT)))
    highest = min(TEXT_SIZES[1], 0.9 * math.sqrt(aspect) / (LETTER_WIDTH * len(text)))
    size = randomness.uniform(min(TEXT_SIZES[0], highest), highest)
    x, y = (float(randomness.uniform(half, 1 - half)) for half in _half_room(text, size, aspect))
    colour, paint = (_light_paint if light else _paint)(randomness, background)
    return Text(text, colour, x, y, float(size), paint)


def _object(randomness, scene):
    return _shape(randomness, scene.aspect, *_paint(randomness, scene.background))


def _light_object(randomness, scene):
    return _shape(randomness, scene.aspect, *_light_paint(randomness, scene.background))


def _shape(randomness, aspect, colour, paint):
    size = _choice(randomness, SIZES)
    radius, stretch = randomness.uniform(*SIZES[size]), MOST_STRETCH ** randomness.uniform(-1, 1)
    x, y = (float(randomness.uniform(half, 1 - half)) for half in _reach(radius, stretch, aspect))
    shape, turn = _choice(randomness, SHAPES), randomness.uniform(-MOST_TURN, MOST_TURN)
    return Object(shape, colour, size, x, y, float(radius), float(turn), float(stretch), paint)


def _reach(radius, stretch, aspect):
    """Return how far a shape reaches at most to each side and up or down, as fractions of the width and the height."""
    reach, root = radius * max(stretch, 1 / stretch) + MARGIN, math.sqrt(aspect)
    return reach / root, reach * root


def _paint(randomness, background):
    """Return the name of a colour and one of its shades, which differs from the background."""
    while True:
        colour = _choice(randomness, COLOURS)
        one, other = (np.array(COLOURS[colour][i]) for i in randomness.integers(len(COLOURS[colour]), size=2))
        shade = one + randomness.random() * (other - one) + randomness.uniform(-TINT, TINT, 3)
        paint = tuple(int(level) for level in shade.clip(0, 255))
        if contrast(paint, background) >= LEAST_CONTRAST:
            return colour, paint


def _light_paint(randomness, background):
    """Return the name of a colour of the light world and one of its shades."""
    colour = _choice(randomness, LIGHT_COLOURS)
    shade = np.array(COLOURS[colour][0]) + randomness.integers(-LIGHT_TINT, LIGHT_TINT + 1, 3)
    return colour, tuple(int(level) for level in shade.clip(0, 255))


def contrast(paint, background):
    """Return the distance in RGB between a colour and the nearest one of those between the background's two colours."""
    start, end = (np.array(colour, dtype=float) for colour in background.colours)
    along, rest = end - start, np.array(paint) - start
    part = np.clip(rest @ along / max(along @ along, 1), 0, 1)
    return float(np.linalg.norm(rest - part * along))


def _fit(one, other, aspect):
    root = math.sqrt(aspect)
    distance = math.hypot((one.x - other.x) * root, (one.y - other.y) / root)
    return (
        one.name != other.name
        and abs(one.x - other.x) >= LEAST_STEP
        and distance >= LEAST_DISTANCE * (one.radius + other.radius)
    )


def _touches(thing, text, aspect):
    across, down = _reach(thing.radius, thing.stretch, aspect)
    width, height = _half_room(text.text, text.size, aspect)
    return abs(thing.x - text.x) < width + across and abs(thing.y - text.y) < height + down


def _half_room(text, size, aspect):
    """Return half the room of a text, as fractions of the width and the height."""
    root = math.sqrt(aspect)
    return (LETTER_WIDTH * len(text) * size / 2 + MARGIN) / root, (size / 2 + MARGIN) * root


def _choice(randomness, names):
    return str(randomness.choice(list(names)))


def _integer(randomness):
    return int(randomness.integers(2**31))
