"""The logits of an answer whose tokens are given, as a model has them, and as it would have them with a mistake."""

import dataclasses
import functools
from collections.abc import Callable, Container, Iterable

import numpy as np

from npgemma.machinery.model import Model
from npgemma.porting import given_tokens, narrow
from npgemma.porting.exact import exact
from npgemma.probe.exchange import Changes, exchanged

# Changes of these modules and functions need other pixels, or other image tokens.
PIXELS, VISION = {"image"}, {"image", "siglip", "paligemma.project"}


@dataclasses.dataclass(frozen=True)
class Question:
    """An image, a prompt, and the tokens that a port gave in answer."""

    model: Model  # on the NumPy backend
    load: Callable[[], given_tokens.Images]  # reads the image: again for each mistake in how images are read
    prompt: str
    token_ids: list[int]

    def logits(self, changes: Changes | None = None, rows: int | None = None) -> np.ndarray:
        """Run the model on the port's own tokens, with one variant of a mistake injected, and return logits (n, V).

        Row i holds the logits from which token i is chosen. By default there is one for each token, or fewer where the
        model's context is full.
        """
        with exchanged(changes or {}):
            prompt_ids = given_tokens.prompt_ids(self.model, self.prompt)
            image_BPD = self._image_tokens(changes or {})
            return given_tokens.decode(self.model, image_BPD, prompt_ids, self.token_ids[:rows])

    def narrow(self, dtype: str, rows: int) -> list[np.ndarray]:
        """Return the logits of right programs of a narrow dtype, each of which rounds otherwise."""
        question = Question(exact(self.model, dtype), lambda: self._image, self.prompt, self.token_ids)
        return narrow.runs(lambda: question.logits(None, rows), dtype)

    def _image_tokens(self, changes):
        """Encode the image; where no change affects that, once for all."""
        if not touches(changes, VISION):
            return self._right_image_tokens
        return self._encoded(self.load() if touches(changes, PIXELS) else self._image)

    def _encoded(self, image):
        return given_tokens.encode(self.model, given_tokens.pixels_of(image))

    @functools.cached_property
    def _image(self):
        return self.load()

    @functools.cached_property
    def _right_image_tokens(self):
        return self._encoded(self._image)


def touches(changes: Iterable[str], parts: Container[str]) -> bool:
    """Say whether a changed function, ``module.function``, or its module is among ``parts``."""
    return any(name in parts or name.partition(".")[0] in parts for name in changes)
