"""What is asked in the checks of a checkpoint: two images, three prompts."""

import numpy as np
from PIL import Image

import npgemma

PROMPTS = ("caption en", "answer en how many objects", "detect red circle")
# Images with prompts: the first three have every image and every prompt, for models that take long.
PAIRS = (
    ("photo", PROMPTS[0]),
    ("example", PROMPTS[1]),
    ("example", PROMPTS[2]),
    ("example", PROMPTS[0]),
    ("photo", PROMPTS[1]),
    ("photo", PROMPTS[2]),
)
# Prompts of two lengths: in one pass of both, the first is padded.
SHORT, LONG = PAIRS[:2]


def photo():
    """Return an image with the statistics of a photo: all sizes of detail, soft light, edges; the same every time.

    In a photo the amplitude of a detail falls with its frequency, somewhat faster than 1/f; noise of that spectrum has
    gradients and textures that drawn shapes do not have.
    """
    Y, X = 360, 480
    randomness = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(Y)[:, None], np.fft.fftfreq(X)[None])
    frequency[0, 0] = np.inf

    def texture(power):
        """Return noise of mean 0 and variance 1, the smoother the higher the power."""
        values = np.fft.ifft2(np.fft.fft2(randomness.standard_normal((Y, X))) / frequency**power).real
        return values / values.std()

    light = texture(1.3)
    # The channels of a photo mostly rise and fall together.
    values = np.stack([light + 0.4 * texture(1.6) for _ in range(3)], axis=-1)
    # A nearer object hides what is behind it: an edge, as smooth noise does not have.
    near = texture(3) > 0.7
    values[near] = 0.4 * values[near] + np.array([1.2, 0.2, -0.6])
    return Image.fromarray((127.5 + 50 * values).clip(0, 255).astype(np.uint8))


IMAGES = {"example": npgemma.example_image, "photo": photo}
