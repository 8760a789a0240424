"""Mistakes in what goes in: pixels, resizing, and the ids of the prompt."""

import numpy as np
from PIL import Image, ImageOps

from npgemma.porting.mistakes.injection import Mistake, like
from npgemma.porting.resizing import by_channel, cubic, sampled

# ImageNet's channel means and deviations, of values from 0 to 1, which many vision models are trained with.
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _pixels(change):
    """Return the changes that give the vision tower other pixels, made of the right ones from -1 to 1."""

    def wrong(module, right):
        return lambda pixels_BYXC, p, config: right(change(pixels_BYXC), p, config)

    return ({"siglip.encode": wrong},)


def _imagenet(pixels_BYXC):
    mean, deviation = like(pixels_BYXC, IMAGENET_MEAN), like(pixels_BYXC, IMAGENET_DEVIATION)
    return ((pixels_BYXC + 1) / 2 - mean) / deviation


class _Resized:
    """An image whose `resize` disregards the filter it is asked for."""

    def __init__(self, image, resize):
        self.size, self._resize, self._image = image.size, resize, image

    def resize(self, size, resample):
        """Resize in the wrong way."""
        return self._resize(self._image, size)


def _resize(*variants):
    """Return the changes that resize by other functions, each ``resize(image, size)``."""

    def changes(resize):
        return {"image.upright_rgb": lambda module, right: lambda image: _Resized(right(image), resize)}

    return tuple(map(changes, variants))


def _not_antialiased(image, size):
    return sampled(cubic, image, size).round().clip(0, 255).astype(np.uint8)


def _bilinear_not_antialiased(image, size):
    """Resize with the two nearest pixels on each side, as OpenCV does by default."""
    scale = (image.width / size[0], 0, 0, 0, image.height / size[1], 0)
    return image.transform(size, Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR)


def _letterbox(level):
    """Return the way to keep the sides' ratio and to fill what is left with a grey of 0 to 255."""
    return lambda image, size: ImageOps.pad(image, size, Image.Resampling.BICUBIC, (level,) * 3)


def _cropped(image, size):
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def _in_float(image, size):
    return by_channel(Image.Resampling.BICUBIC, np.float32, image, size)


def _prompt(change):
    """Return the changes that give the decoder another prompt, made of the right ids."""

    def wrong(module, right):
        return lambda self, text: change(right(self, text))

    return ({"tokenizer.Tokenizer.prompt": wrong},)


_PIXELS = "encode_image.0/encode.0/pixels_BYXC"
_IDS = "prefill.0/ids_BT"
_SAME_SIZE = "an image of the model's own size is not resized"
_SQUARE = "a square image keeps the ratio of its sides"
MISTAKES = (
    Mistake(
        "pixels-zero-one",
        "Pixels go from 0 to 1, where the vision tower expects -1 to 1.",
        "torchvision's to_tensor, and processors with rescaling but no normalisation",
        _PIXELS,
        _pixels(lambda pixels_BYXC: (pixels_BYXC + 1) / 2),
    ),
    Mistake(
        "pixels-255",
        "Pixels go from 0 to 255: they were never rescaled.",
        "processors with rescaling switched off, because an earlier step was thought to do it",
        _PIXELS,
        # Without any normalisation; and with the one by 0.5 and 0.5.
        (
            *_pixels(lambda pixels_BYXC: (pixels_BYXC + 1) * 127.5),
            *_pixels(lambda pixels_BYXC: (pixels_BYXC + 1) * 255 - 1),
        ),
    ),
    Mistake(
        "pixels-normalised-twice",
        "Pixels that are normalised already are normalised again: they go from -3 to 1.",
        "processors that are given what another processor has made",
        _PIXELS,
        _pixels(lambda pixels_BYXC: 2 * pixels_BYXC - 1),
    ),
    Mistake(
        "pixels-divided-by-128",
        "Levels are divided by 128 instead of by 127.5, and so end below 1.",
        "ports that take the range of a signed byte",
        _PIXELS,
        _pixels(lambda pixels_BYXC: (pixels_BYXC + 1) * (127.5 / 128) - 1),
    ),
    Mistake(
        "pixels-bgr",
        "The channels come as blue, green, red.",
        "images read with OpenCV",
        _PIXELS,
        _pixels(lambda pixels_BYXC: pixels_BYXC[..., [2, 1, 0]]),
        "images of greys are the same in any order of channels",
    ),
    Mistake(
        "pixels-imagenet-norm",
        "Pixels are normalised by ImageNet's means and deviations instead of 0.5 and 0.5.",
        "transforms copied from other vision models (transformers issue 38318 has other preprocessing)",
        _PIXELS,
        _pixels(_imagenet),
    ),
    Mistake(
        "resize-bilinear",
        "The image is resized with a bilinear filter, Hugging Face's PaliGemma with a bicubic one.",
        "big_vision, on which the models were trained; transformers issue 27601",
        _PIXELS,
        _resize(lambda image, size: image.resize(size, Image.Resampling.BILINEAR), _bilinear_not_antialiased),
        _SAME_SIZE,
    ),
    Mistake(
        "resize-nearest",
        "Every pixel of the resized image is the nearest one of the original.",
        "gemma.cpp",
        _PIXELS,
        _resize(lambda image, size: image.resize(size, Image.Resampling.NEAREST)),
        _SAME_SIZE,
    ),
    Mistake(
        "resize-no-antialias",
        "The bicubic filter takes four pixels on each axis however much the image shrinks.",
        "OpenCV's INTER_CUBIC, and torch's interpolate without antialias",
        _PIXELS,
        _resize(_not_antialiased),
        _SAME_SIZE,
    ),
    Mistake(
        "resize-letterbox",
        "The image keeps the ratio of its sides, and bars of one grey fill the square.",
        "processors of models that pad, as LLaVA's do",
        _PIXELS,
        _resize(*map(_letterbox, (0, 255, 127, 128))),
        _SQUARE,
    ),
    Mistake(
        "resize-crop",
        "The image keeps the ratio of its sides, and what stands out of the square is cut off.",
        "keras-hub's image converter, and torchvision's CenterCrop",
        _PIXELS,
        _resize(_cropped),
        _SQUARE,
    ),
    Mistake(
        "resize-not-to-bytes",
        "The resized image is not rounded to whole levels from 0 to 255.",
        "resizing in floating point, as torchvision does with tensors of it",
        _PIXELS,
        _resize(_in_float, lambda image, size: _in_float(image, size).clip(0, 255)),
        _SAME_SIZE,
    ),
    Mistake(
        "no-newline",
        "The newline after the prompt is missing.",
        "prompts that are tokenised as any text (vLLM issue 13584)",
        _IDS,
        _prompt(lambda ids: ids[:-1]),
    ),
    Mistake(
        "no-bos",
        "The token <bos> before the prompt is missing.",
        "tokenizers that are told to add no special tokens (vLLM issue 13584, litgpt issue 1031)",
        _IDS,
        _prompt(lambda ids: ids[1:]),
    ),
    Mistake(
        "double-bos",
        "The token <bos> stands before the prompt twice.",
        "a <bos> in the text, and a tokenizer that adds one too",
        _IDS,
        _prompt(lambda ids: [ids[0], *ids]),
    ),
)
