"""The figures of README.md and docs/."""

import functools

import numpy as np
from PIL import Image, ImageDraw

import npgemma
from generated import ROOT
from npgemma.command.attention_sheet import heat_map, pale_of, write
from npgemma.explain import diagram
from npgemma.explain.attention_maps import PARTS, attention_of
from npgemma.explain.inference import infer
from npgemma.explain.passes import watched
from npgemma.explain.seen_image import as_seen
from npgemma.explain.token_names import text_of
from npgemma.mask import prefix_lm

# Of the image in patches.png, times the model's own; and of a map in attention.png, in pixels.
ENLARGED, MAP, COLUMNS = 3, 104, 5
PROMPT, DETECT = "caption en", "detect red circle ; blue square"
# The sequence that mask.png shows; P is shortened to four image tokens.
IMAGE, PREFIX, ANSWER = 4, ("<bos>", "detect", "circle", "\\n"), ("<loc>", "<loc>", "circle")
CELL, MARGIN = 26, 72


@functools.cache
def example():
    """Return the embedded model, the example image as loaded, and the square it sees."""
    model = npgemma.load()
    loaded = npgemma.image.load_image(npgemma.example_image(), model.config.vision.image_size, model.preprocessing)
    return model, loaded, Image.fromarray(as_seen(loaded.pixels_BYXC[0], model.preprocessing))


def patches():
    """Draw the grid of patches over the image that the model sees, each with its number in the sequence."""
    model, _, seen = example()
    edge = model.config.vision.patch_size * ENLARGED
    drawn = seen.resize((seen.width * ENLARGED, seen.height * ENLARGED), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(drawn)
    for number in range(model.config.image_tokens):
        row, column = divmod(number, seen.width // model.config.vision.patch_size)
        left, top = column * edge, row * edge
        pen.rectangle((left, top, left + edge, top + edge), outline="white")
        write(drawn, (left + 3, top + 2), str(number), "white")
    return drawn.quantize(64, dither=Image.Dither.NONE)


def attention():
    """Draw where each word of a caption looked: the map of the head that looks most sharply."""
    model, loaded, seen = example()
    with watched(model, attention=True) as passes:
        answer = model.generate(loaded, PROMPT)
    looked = attention_of(passes, answer, 1, len(model.tokenizer.prompt(PROMPT)))
    [head], words = looked.sharpest(1), answer.token_ids[:-1]
    pale, row = pale_of(seen, (MAP, MAP)), MAP + 26
    drawn = Image.new("RGB", (COLUMNS * (MAP + 6), -(-len(words) // COLUMNS) * row), "white")
    for place, i in enumerate(words):
        left, top = place % COLUMNS * (MAP + 6), place // COLUMNS * row
        drawn.paste(heat_map(pale, looked.map(place, *head)), (left, top))
        write(drawn, (left + 2, top + MAP + 2), text_of(model.tokenizer, i).strip())
    return drawn.quantize(64, dither=Image.Dither.NONE)


def mask():
    """Draw the mask of a short sequence: rows are queries, columns keys."""
    names = ["image"] * IMAGE + list(PREFIX + ANSWER)
    prefix_BS = np.arange(len(names))[None] < IMAGE + len(PREFIX)
    [mask_TS] = prefix_lm(prefix_BS, np.ones_like(prefix_BS), len(names))
    drawn = Image.new("RGB", (MARGIN + len(names) * CELL + 1,) * 2, "white")
    pen, across = ImageDraw.Draw(drawn), Image.new("RGB", (len(names) * CELL, MARGIN), "white")
    for place, name in enumerate(names):
        write(drawn, (6, MARGIN + place * CELL + 4), name)
        # Written sideways: a strip for each column, rotated.
        strip = Image.new("RGB", (MARGIN, CELL), "white")
        write(strip, (6, 4), name)
        across.paste(strip.rotate(90, expand=True), (place * CELL, 0))
    drawn.paste(across, (MARGIN, 0))
    for (query, key), seen in np.ndenumerate(mask_TS):
        left, top = MARGIN + key * CELL, MARGIN + query * CELL
        part = "answer" if max(query, key) >= IMAGE + len(PREFIX) else "image" if key < IMAGE else "prompt"
        pen.rectangle((left, top, left + CELL, top + CELL), PARTS[part] if seen else "white", "#BBBBBB")
    return drawn.quantize(16, dither=Image.Dither.NONE)


def model():
    """Draw the diagram of the whole model, as the page of ``explain`` shows it."""
    embedded, loaded, _ = example()
    return diagram.figure(infer(embedded, loaded, DETECT, {}), COLUMNS)


DRAWINGS = {"docs/figures/model.svg": model}
FIGURES = {f"docs/figures/{draw.__name__}.png": draw for draw in (patches, mask, attention)}


def write_all():
    """Write every figure."""
    for path, draw in FIGURES.items():
        draw().save(ROOT / path, optimize=True)
    for path, draw in DRAWINGS.items():
        (ROOT / path).write_text(draw(), encoding="utf-8")
