"""Pictures and what the embedded model really says about them: ``python -m tiny.training gallery``."""

import json
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

import npgemma
from npgemma.answer import find_objects
from npgemma.command.annotate import annotate
from npgemma.errors import InputError
from npgemma.files.writing import replacing
from tiny.training import drawing, scenes
from tiny.training.evaluate import MAX_TOKENS, Tally, codebook_of, held_out_examples, score

FOLDER, FILE = "gallery", "gallery.json"
SIDE = 336
# A scene with something for every kind of prompt, chosen because every answer about it is right; it is not among those
# of the model card's tables.
EXAMPLE_SEED = scenes.HELD_OUT_SEEDS[92861]
# In this order one wrong answer of the held-out scenes is shown.
FAILING = ("caption", "ocr", "detect two", "position", "segment")


@dataclass(frozen=True)
class Item:
    """A picture with a prompt; ``right`` is the true answer, if there is one."""

    name: str
    about: str
    picture: Image.Image
    prompt: str
    right: str | None = None


def items(model, mask_params) -> list[Item]:
    """Return what the gallery shows, a wrong answer of the model among it."""
    example = drawing.draw(scenes.scene(EXAMPLE_SEED), SIDE)
    return [
        Item("two-boxes", "the example picture", example, "detect red circle ; blue square"),
        Item("mask", "the example picture", example, "segment red circle"),
        Item("text", "the example picture", example, "ocr"),
        Item("painted", "drawn by hand, with a paint program's plain colours and hard edges", painted(), "caption en"),
        Item("dark", "drawn on a dark background, as a screenshot may be", dark(), "caption en"),
        Item("wide", "three times as wide as high", wide(), "detect yellow star ; white circle"),
        Item("unknown", "a picture of nothing that the model knows", unknown(), "caption en"),
        failure(model, mask_params),
    ]


def painted():
    """Return a picture as a person makes it in a paint program: wide, plain colours, hard edges, no set sizes."""
    picture = Image.new("RGB", (400, 300), "white")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((30, 60, 130, 170), fill=(255, 0, 0))
    pen.rectangle((180, 150, 260, 240), fill=(0, 0, 255))
    pen.polygon([(330, 40), (290, 120), (372, 118)], fill=(0, 128, 0))
    return picture


def dark():
    """Return a picture in dark colours, with a word, as a screenshot may be."""
    picture = Image.new("RGB", (480, 360), (30, 30, 34))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((50, 60, 150, 160), fill=(255, 140, 0))
    pen.ellipse((290, 170, 430, 310), fill=(230, 30, 50))
    return picture


def wide():
    """Return a picture three times as wide as high."""
    picture = Image.new("RGB", (720, 240), (20, 60, 140))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((500, 60, 640, 200), fill="white")
    corners = [(200 + r * math.sin(a), 120 - r * math.cos(a)) for r, a in _star(90)]
    pen.polygon(corners, fill=(255, 220, 0))
    return picture


def _star(radius):
    return [(radius if i % 2 == 0 else 0.45 * radius, math.pi * i / 5) for i in range(10)]


def unknown():
    """Return something like a photograph: a sky, hills, and much noise."""
    rows, columns = np.mgrid[:240, :360] / 240
    hills = 0.55 + 0.12 * np.sin(5 * columns) + 0.05 * np.sin(17 * columns + 1)
    sky, meadow = np.array([120, 170, 230]) + 60 * rows[..., None], np.array([60, 110, 50]) - 40 * rows[..., None]
    level = np.where((rows > hills)[..., None], meadow, sky)
    level = level + np.random.default_rng(0).normal(0, 14, level.shape)
    return Image.fromarray(level.clip(0, 255).astype(np.uint8))


def failure(model, mask_params):
    """Return the first held-out scene and prompt that the model answers wrongly, of the kind that fails first."""
    side = model.config.vision.image_size
    for task in FAILING:
        for seed in scenes.HELD_OUT_SEEDS[:300]:
            scene = scenes.scene(seed)
            for example in held_out_examples(scene):
                if example.task == task and example.answer:
                    picture = drawing.picture_for(scene, side)
                    answer = model.generate(picture, example.prompt, max_new_tokens=MAX_TOKENS).text
                    tallies = {task: Tally()}
                    score(tallies, scene, example, answer, mask_params)
                    if tallies[task].right < tallies[task].asked:
                        about = f"held-out scene {seed}, answered wrongly"
                        return Item("failure", about, picture, example.prompt, example.answer)
    raise InputError("no wrong answer found to show")


def make(folder):
    """Write into a checkpoint's folder the example picture and the gallery: annotated pictures, prompts and answers."""
    save(drawing.draw(scenes.scene(EXAMPLE_SEED), SIDE), folder / "example.png")
    model, mask_params, shown = npgemma.load(folder), codebook_of(folder), []
    (folder / FOLDER).mkdir(exist_ok=True)
    for item in items(model, mask_params):
        answer = model.generate(item.picture, item.prompt, max_new_tokens=MAX_TOKENS).text
        objects = find_objects(answer, item.picture.size, mask_params)
        save(annotate(item.picture, objects), folder / FOLDER / f"{item.name}.png")
        shown.append({"name": item.name, "about": item.about, "prompt": item.prompt, "answer": answer})
        if item.right is not None:
            shown[-1]["right"] = item.right
    with replacing(folder / FOLDER / FILE) as file:
        file.write((json.dumps(shown, indent=2, ensure_ascii=False) + "\n").encode())


def save(picture, path):
    """Write a picture as a small PNG."""
    with replacing(path) as file:
        picture.save(file, "PNG", optimize=True)


def table(folder):
    """Return the gallery as a Markdown table; its pictures are named from the project's root."""
    shown = json.loads((folder / FOLDER / FILE).read_text(encoding="utf-8"))
    rows = ["| picture | prompt | answer |", "|---|---|---|"]
    for item in shown:
        image = f'<img src="tiny/{FOLDER}/{item["name"]}.png" width="160" alt="{item["about"]}">'
        answer = f"`{item['answer']}`" if item["answer"] else "(nothing)"
        right = f"<br>the right answer: `{item['right']}`" if "right" in item else ""
        rows.append(f"| {image}<br>{item['about']} | `{item['prompt']}` | {answer}{right} |")
    return "\n".join(rows)
