"""The square that the model sees, made from its pixels again: for --save-image-as-seen and for the page."""

import base64
import dataclasses

import numpy as np
import pytest
from PIL import Image

import npgemma
from npgemma.explain import seen_image
from npgemma.explain.inference import infer
from npgemma.explain.packing import Pack
from npgemma.image import PUBLISHED, Preprocessing, load_image, open_image, upright_rgb

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))


@pytest.mark.parametrize("preprocessing", [PUBLISHED, IMAGENET], ids=["published", "ImageNet"])
def test_it_is_the_resized_image(preprocessing):
    model = dataclasses.replace(npgemma.load(), preprocessing=preprocessing)
    original, side = upright_rgb(open_image(npgemma.example_image())), model.config.vision.image_size
    resized = np.asarray(original.resize((side, side), Image.Resampling.BICUBIC))
    image = load_image(original, side, preprocessing)
    assert np.array_equal(seen_image.as_seen(image.pixels_BYXC[0], preprocessing), resized)

    pack = Pack()
    shown = seen_image.image(infer(model, image, "ocr", {"max_new_tokens": 1}), original, pack)["pixels"]
    on_page = np.frombuffer(base64.b64decode(pack.text()), np.uint8, resized.size, shown["offset"])
    assert np.array_equal(on_page.reshape(shown["shape"]), resized)
