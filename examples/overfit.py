"""A model learns four answers by heart, in NumPy alone; its loss is drawn: ``python examples/overfit.py [FILE]``."""

import dataclasses
import sys

from PIL import Image, ImageDraw

import npgemma
from npgemma.backward.answers import batch_of, gradients
from npgemma.backward.optimizer import adamw, no_moments, rate_at

ANSWERS = {"caption en": "a small black cat", "ocr": "HELLO", "answer en how many objects": "7", "detect cat": "no cat"}


def train(model, steps):
    """Return the loss before each step, and the model after all of them."""
    image = npgemma.image.load_pixels(npgemma.example_image(), model.config.vision.image_size)
    batch = batch_of(model, image, [*ANSWERS], [*ANSWERS.values()])
    p, moments, losses = model.params, no_moments(model.params), []
    for step in range(1, steps + 1):
        loss, _, dp = gradients(batch, p, model.config)
        p, moments = adamw(p, dp, moments, rate_at(step, steps, 2e-3, warmup=0.2))
        print(f"step {step:2}, loss {loss:.3f}")
        losses.append(float(loss))
    return losses, dataclasses.replace(model, params=p)


def draw(losses, path):
    """Draw losses as a curve, with 0 at the bottom."""
    curve = Image.new("RGB", (640, 320), "white")
    places = [(20 + 600 * i / (len(losses) - 1), 300 - 280 * loss / max(losses)) for i, loss in enumerate(losses)]
    ImageDraw.Draw(curve).line(places, fill="black", width=3)
    curve.save(path)


if __name__ == "__main__":
    before = npgemma.load()
    losses, after = train(before, 20)
    for prompt in ANSWERS:
        old, new = (model.generate(npgemma.example_image(), prompt).text for model in (before, after))
        print(f"{prompt}: {old!r} has become {new!r}")
    draw(losses, sys.argv[1] if sys.argv[1:] else "curve.png")
