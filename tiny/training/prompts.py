"""What can be asked about a scene, and the right answers."""

from dataclasses import dataclass

from tiny.training.scenes import COLOURS, SHAPES, Scene

# Coordinates are told in so many steps, of ``<loc0000>`` to ``<loc1023>``.
LOCATIONS = 1024
# How often each kind of prompt is asked in training, beside the others.
TASKS = {
    "caption": 2.0, "caption in German": 1.0, "count": 1.0, "color": 1.0, "shape": 1.0, "position": 1.5,
    "yes or no": 1.5, "ocr": 3.0, "detect": 2.0, "detect two": 2.0, "segment": 2.0,
}  # fmt: skip
# Beside, above: at least so far (of the side) apart.
LEAST_APART = 0.12
GERMAN = {
    "red": "rot", "orange": "orangefarben", "yellow": "gelb", "green": "grün", "blue": "blau", "purple": "violett",
    "black": "schwarz", "white": "weiß", "grey": "grau", "small": "klein", "large": "groß",
}  # fmt: skip
# With the ending that the gender of the noun asks for.
GERMAN_SHAPES = {
    "circle": ("er", "Kreis"), "square": ("es", "Quadrat"), "triangle": ("es", "Dreieck"), "star": ("er", "Stern"),
    "cross": ("es", "Kreuz"),
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A prompt and its only right answer; ``task`` is one of `TASKS`."""

    task: str
    prompt: str
    answer: str


def examples(scene: Scene, shown, codes, randomness) -> list[Example]:
    """Ask one thing of every kind about a scene, at random: the caption first.

    Boxes and masks are `tiny.training.drawing.shown`'s, and the masks in sixteen codes each
    `tiny.training.codebook.Codebook.encode`'s. What does not fit the scene, such as the position of its only object, is
    left out.
    """
    objects = scene.objects
    boxes = {thing.name: location_text(box) for thing, (box, _) in zip(objects, shown)}
    found = [
        Example("caption", "caption en", caption(objects)),
        Example("caption in German", "caption de", german_caption(objects)),
        Example("ocr", "ocr", scene.texts[0].text if scene.texts else ""),
        _count(objects, randomness),
        _detect(objects, boxes, randomness),
        _detect_two(objects, boxes, randomness),
        _yes_or_no(objects, randomness),
        *_color(scene, randomness),
    ]
    if not objects:
        return found
    which = randomness.integers(len(objects))
    name = objects[which].name
    masks = "".join(f"<seg{code:03}>" for code in codes[which])
    found.append(Example("segment", f"segment {name}", f"{boxes[name]}{masks} {name}"))
    found += _shape(objects, randomness)
    pairs = _pairs(objects)
    if pairs:
        one, other, relation = pairs[randomness.integers(len(pairs))]
        choice = "left or right of" if relation in ("left", "right") else "above or below"
        found.append(Example("position", f"answer en is the {one} {choice} the {other}", relation))
    return found


def caption(objects):
    """Return a sentence that names the objects from left to right; without any, it says that."""
    return _list([f"a {thing.size} {thing.colour} {thing.shape}" for thing in objects] or ["no shapes"], "and")


def german_caption(objects):
    """Return the same sentence in German, where adjectives follow the gender of the noun."""
    names = []
    for thing in objects:
        ending, noun = GERMAN_SHAPES[thing.shape]
        names.append(f"ein {GERMAN[thing.size]}{ending} {GERMAN[thing.colour]}{ending} {noun}")
    return _list(names or ["keine Formen"], "und")


def forms(name):
    """Return all words for a thing: of a colour, a shape or a size its forms in both languages.

    >>> forms("cross"), forms("red")
    (['cross', 'crosses', 'Kreuz'], ['red', 'roter', 'rotes'])
    """
    if name in GERMAN_SHAPES:
        return [name, plural(name), GERMAN_SHAPES[name][1]]
    if name == "text":
        return ["text", "ocr"]
    return [name, *(GERMAN[name] + ending for ending in ("er", "es"))] if name in GERMAN else [name]


def plural(shape):
    """Return the plural of a shape's name."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def location_text(box):
    """Write edges (top, left, bottom, right, fractions of the side) as PaliGemma does, ``<loc0512>`` for the middle."""
    return "".join(f"<loc{round(edge * (LOCATIONS - 1)):04}>" for edge in box)


def _list(names, last):
    return f" {last} ".join([*filter(None, [", ".join(names[:-1])]), names[-1]])


def _count(objects, randomness):
    if randomness.random() < 0.5:
        return Example("count", "answer en how many objects", str(len(objects)))
    shape = randomness.choice(SHAPES) if not objects or randomness.random() < 0.3 else _one(objects, randomness).shape
    number = sum(thing.shape == shape for thing in objects)
    return Example("count", f"answer en how many {plural(shape)}", str(number))


def _color(scene, randomness):
    shapes = [thing.shape for thing in scene.objects]
    asked = [(thing.shape, thing.colour) for thing in scene.objects if shapes.count(thing.shape) == 1]
    asked += [("text", text.colour) for text in scene.texts]
    if not asked:
        return []
    what, colour = _one(asked, randomness)
    return [Example("color", f"answer en what color is the {what}", colour)]


def _shape(objects, randomness):
    colours = [thing.colour for thing in objects]
    asked = [thing for thing in objects if colours.count(thing.colour) == 1]
    if not asked:
        return []
    thing = _one(asked, randomness)
    return [Example("shape", f"answer en what shape is {thing.colour}", thing.shape)]


def _pairs(objects):
    """Return (name, name, relation) of every two objects that are clearly beside or above each other."""
    found = []
    for one in objects:
        for other in objects:
            right, down = one.x - other.x, one.y - other.y
            if abs(right) >= LEAST_APART:
                found.append((one.name, other.name, "right" if right > 0 else "left"))
            if abs(down) >= LEAST_APART:
                found.append((one.name, other.name, "below" if down > 0 else "above"))
    return found


def _yes_or_no(objects, randomness):
    answer, pairs = _one(["yes", "no"], randomness), _pairs(objects)
    if pairs and randomness.random() < 0.5:
        one, other, relation = _one(pairs, randomness)
        opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
        said = relation if answer == "yes" else opposite[relation]
        words = f"{said} of" if said in ("left", "right") else said
        return Example("yes or no", f"answer en is the {one} {words} the {other}", answer)
    answer = answer if objects else "no"
    name = _one(objects, randomness).name if answer == "yes" else _absent(objects, randomness)
    return Example("yes or no", f"answer en is there {'an' if name[0] in 'aeiou' else 'a'} {name}", answer)


def _detect(objects, boxes, randomness):
    """Ask for one object, for one that is not there (the answer is empty), or for all of one shape."""
    kind = randomness.random()
    if not objects or kind < 0.1:
        return Example("detect", f"detect {_absent(objects, randomness)}", "")
    thing = _one(objects, randomness)
    if kind < 0.3:
        found = [f"{boxes[other.name]} {thing.shape}" for other in objects if other.shape == thing.shape]
        return Example("detect", f"detect {thing.shape}", " ; ".join(found))
    return Example("detect", f"detect {thing.name}", f"{boxes[thing.name]} {thing.name}")


def _detect_two(objects, boxes, randomness):
    """Ask for two objects, of which one may not be there."""
    one = _one(objects, randomness).name if objects else _absent(objects, randomness)
    others = [thing.name for thing in objects if thing.name != one]
    absent = not others or randomness.random() < 0.15
    other = _absent(objects, randomness) if absent else _one(others, randomness)
    names = [one, other] if randomness.random() < 0.5 else [other, one]
    answer = " ; ".join(f"{boxes[name]} {name}" for name in names if name in boxes)
    return Example("detect two", f"detect {' ; '.join(names)}", answer)


def _absent(objects, randomness):
    """Return the name of an object that is not there, mostly one that shares colour or shape with one that is."""
    names = [thing.name for thing in objects]
    while True:
        colour, shape = randomness.choice(list(COLOURS)), randomness.choice(SHAPES)
        near = [name for thing in objects for name in (f"{thing.colour} {shape}", f"{colour} {thing.shape}")]
        name = str(randomness.choice([*near, f"{colour} {shape}"]))
        if name not in names:
            return name


def _one(things, randomness):
    return things[randomness.integers(len(things))]
