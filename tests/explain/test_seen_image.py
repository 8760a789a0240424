"""The square that the model sees, made from its pixels again: for --save-image-as-seen and for the page."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from tour_page import unpacked

import npgemma
from npgemma.explain import seen_image
from npgemma.explain.inference import infer
from npgemma.explain.packing import Pack
from npgemma.files.images import open_image, upright_rgb
from npgemma.image import PUBLISHED, Preprocessing, load_image

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
    assert np.array_equal(unpacked(pack, shown), resized)


def test_the_similarity_of_position_embeddings_is_their_cosine():
    position_TD = np.array([[2.0, 0.0], [5.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    assert seen_image._similarity(position_TD)[0].tolist() == [255, 255, 0, 128, 128]
