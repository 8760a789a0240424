"""Known ways to misread an image, by name: the fewest that together give a port's pixels are its causes."""

import functools
import itertools

import numpy as np
from PIL import Image, ImageOps

from npgemma.files.images import ORIENTATION, TRANSPOSED, open_image, upright_rgb
from npgemma.porting.resizing import by_channel, cubic, linear, sampled

# The filters with which published programs resize.
RESAMPLE = {"hugging_face": Image.Resampling.BICUBIC, "big_vision": Image.Resampling.BILINEAR}
NOT_WHOLE = "not rounded to whole levels"
# From wrong values of pixels to right ones, where a right pixel is p from -1 to 1, or x from 0 to 255 before it.
VALUES = {
    "your pixels are (p + 1) / 2 of the expected p: from 0 to 1, ours from -1 to 1": lambda y: 2 * y - 1,
    "your pixels are 127.5 (p + 1) of the expected p: from 0 to 255, ours from -1 to 1": lambda y: y / 127.5 - 1,
    "your pixels are x / 128 - 1 of a level x, ours x / 127.5 - 1": lambda y: (y + 1) * 128 / 127.5 - 1,
    "your pixels are 2 p - 1 of the expected p: normalised twice": lambda y: (y + 1) / 2,
    "your pixels are 2 x - 1 of a level x: not divided by 255 before normalising": lambda y: (y + 1) / 255 - 1,
}
ORDERS = {"channels are blue, green, red": lambda y: y[..., ::-1]}


def levels_off(right, found) -> float:
    """Return the largest difference of pixels in levels from 0 to 255: in float64, to a thousandth of a level.

    The last bit of a float32 pixel is at most 1e-5 of a level, so whole levels in float32 are whole numbers apart.
    """
    return float(np.round(np.abs(right - found.astype(np.float64)).max() * 127.5, 3))


def causes_of(found, file, program: str, limit: float, most: int = 3) -> tuple[str, ...]:
    """Return the fewest causes, at most ``most``, that give the pixels found (Y, X, 3) within ``limit`` levels.

    Of several, those that are nearest; none if nothing fits. A cause that does not change the image is not among them:
    fewer are enough without it.
    """
    ways, part = list(_ways(file, len(found), program)), 2 * (slice(None, None, -(-len(found) // 16)),)
    part_of = functools.cache(lambda i: ways[i][1]()[part])  # is enough to see that something else was done
    for count in range(1, most + 1):
        fitting: dict[tuple[str, ...], float] = {}
        for arranged, y in _arrangements(found.astype(np.float64), count):
            for i, (causes, make) in enumerate(ways):
                if len(arranged) + len(causes) != count or _off(part_of(i), y[part]) > limit:
                    continue
                pixels, names = make(), arranged + causes
                # What is nearly of one colour is near to anything that is scaled down enough.
                if not arranged or np.nanmax(pixels) - np.nanmin(pixels) > 10 * limit / 127.5:
                    fitting[names] = min(_off(pixels, y), fitting.get(names, np.inf))
        if fitting and min(fitting.values()) <= limit:
            return min(fitting, key=lambda names: fitting[names])
    return ()


def _arrangements(found, most):
    """Yield at most so many causes in order and values, and the pixels found without them."""
    for order, value in itertools.product([None, *ORDERS], [None, *VALUES]):
        names = tuple(filter(None, (order, value)))
        if len(names) <= most:
            y = ORDERS[order](found) if order else found
            yield names, VALUES[value](y) if value else y


def _off(pixels, y):
    """Return how many levels pixels are off; where they are NaN, y may have any one colour."""
    padding = np.isnan(pixels[..., 0])
    if padding.any():
        pixels = np.where(padding[..., None], y[padding].mean(0), pixels)
    return levels_off(pixels, y)


def _ways(file, side, program):
    """Yield at most two causes each in reading, placing and resizing, and what makes the pixels with them."""
    filters = list(_filters(program))
    for (reading, image), (placing, place) in itertools.product(_readings(open_image(file)), PLACINGS):
        # In a part of the square only with the three most frequent.
        for name, resize in filters[:3] if placing else filters:
            names = tuple(filter(None, (reading, placing, name)))
            if len(names) <= 2:
                yield names, lambda image=image, place=place, resize=resize: place(image, side, resize) / 127.5 - 1


def _readings(image):
    """Yield an image as RGB, and as it is if one thing is done otherwise that matters to images of its kind."""
    yield "", upright_rgb(image)
    if image.getexif().get(ORIENTATION, 1) in TRANSPOSED:
        yield "the EXIF rotation is left out", image.convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        yield "transparency is left out", layer.convert("RGB")
        black = Image.new("RGBA", layer.size, "black")
        yield "transparent parts are put on black", Image.alpha_composite(black, layer).convert("RGB")
    if image.mode.startswith("I"):
        low = Image.fromarray(np.minimum(np.asarray(image), 255).astype(np.uint8))
        yield "greys of 16 bits are cut off at 255", low.convert("RGB")


def _cropped(image, side, resize):
    """Resize the shorter side to the square's, and crop to its middle; of a strip, crop first."""
    short = min(image.size)
    image = ImageOps.fit(image, (short, short)) if max(image.size) > 4 * short else image
    size = [int(side * each / short) for each in image.size]
    left, top = (round((each - side) / 2) for each in size)
    return resize(image, size)[top : top + side, left : left + side]


def _letterboxed(whole, place, image, side, resize):
    """Resize the longer side to the square's, and pad the other with NaN: behind, on both sides, or in front."""
    size = [max(1, whole(side * each / max(image.size))) for each in image.size]
    left, top = (int((side - each) * place) for each in size)
    square = np.full((side, side, 3), np.nan)
    square[top : top + size[1], left : left + size[0]] = resize(image, size)
    return square


PLACINGS = [("", lambda image, side, resize: resize(image, (side, side))), ("cropped to the middle", _cropped)]
PLACINGS += [
    ("letterboxed", functools.partial(_letterboxed, *how)) for how in itertools.product((round, int), (0, 0.5, 1))
]


def _filters(program):
    """Yield how a port of a program should resize, and other ways."""
    own, partial, thin = RESAMPLE[program], functools.partial, "without antialiasing"
    yield "", partial(by_channel, own, np.uint8)
    for name in RESAMPLE.keys() - {program}:
        yield f"resized as {name} does", partial(by_channel, RESAMPLE[name], np.uint8)
    yield f"resized bilinearly {thin}", partial(sampled, linear)
    yield f"resized bicubically {thin}", partial(sampled, cubic)
    yield f"resized bicubically {thin}", lambda image, size: sampled(cubic, image, size).clip(0, 255)
    yield "resized to the nearest pixel", partial(by_channel, Image.Resampling.NEAREST, np.uint8)
    yield "resized to the nearest pixel", lambda image, size: np.asarray(image)[_upper_left(image, size)].astype(float)
    yield NOT_WHOLE, lambda image, size: by_channel(own, np.float32, image, size).clip(0, 255)
    yield f"{NOT_WHOLE}, nor cut off at 0 and 255", partial(by_channel, own, np.float32)


def _upper_left(image, size):
    """Return the rows and columns that OpenCV and PyTorch take."""
    return np.ix_(*(np.arange(new) * old // new for new, old in zip(size[::-1], image.size[::-1])))
