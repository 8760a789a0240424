"""The logits of an answer whose tokens are given, as a model has them, and as it would have them with a mistake."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from npgemma import generate, paligemma
from npgemma.image import LoadedImage
from npgemma.machinery.model import Model, without_image_marks
from npgemma.porting.given_tokens import pixels_of
from npgemma.probe.exchange import exchanged

# Changes of these need other pixels, or other image tokens; those of these files, which are around the forward pass,
# need no run: logits do not show them.
PIXELS, VISION, AROUND = {"image"}, {"image", "siglip", "paligemma.project"}, {"model", "answer"}


@dataclasses.dataclass(frozen=True)
class Question:
    """An image, a prompt, and the tokens that a port gave in answer.

    Parameters
    ----------
    model : npgemma.Model
        On the NumPy backend.
    load : callable
        Reads the image: again for each mistake in how images are read.
    prompt : str
    token_ids : list of int
    """

    model: Model
    load: Callable[[], LoadedImage | list[LoadedImage]]
    prompt: str
    token_ids: list[int]

    def logits(self, changes=None, rows=None):
        """Run the model on the port's own tokens.

        Parameters
        ----------
        changes : npgemma.porting.mistakes.injection.Changes, optional
            One way of a mistake, made meanwhile.
        rows : int, optional
            As many rows; by default one for each token.

        Returns
        -------
        array (n, V)
            Row i holds the logits from which token i is to be chosen. Fewer rows, if the model's context is full.
        """
        with exchanged(changes or {}):
            ids_BT = np.array([self.model.tokenizer.prompt(without_image_marks(self.prompt))])
            return self._answer(self._image_tokens(changes or {}), ids_BT, self.token_ids[:rows])

    def _answer(self, image_BPD, ids_BT, token_ids):
        found, rest = [], iter(token_ids)

        def choose(logit_BV):
            found.append(logit_BV[0])
            return np.array([next(rest)])

        # A port may have gone on after an end token.
        endless = dataclasses.replace(self.model.config, eos_tokens=())
        text = ids_BT, np.ones(ids_BT.shape, dtype=bool), self.model.params, endless
        for _ in generate.generate(image_BPD, *text, choose, len(token_ids)):
            pass
        return np.array(found)

    def _image_tokens(self, changes):
        """Encode the image; where no change touches that, it was done before."""
        if not touches(changes, VISION):
            return self._right_image_tokens
        return self._encoded(self.load() if touches(changes, PIXELS) else self._image)

    def _encoded(self, image):
        pixels, model = pixels_of(image), self.model
        encode = paligemma.encode_image if pixels.ndim == 4 else paligemma.encode_images
        return encode(model.backend.to_activation(pixels), model.params, model.config)

    @functools.cached_property
    def _image(self):
        return self.load()

    @functools.cached_property
    def _right_image_tokens(self):
        return self._encoded(self._image)


def touches(changes, parts):
    """Say whether a change is one of these functions', or of one in these modules."""
    return any(name in parts or name.partition(".")[0] in parts for name in changes)
