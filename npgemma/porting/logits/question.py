"""The logits of an answer whose tokens are given, as a model has them, and as it would have them with a mistake."""

import dataclasses
import functools
from collections.abc import Callable

from npgemma.image import LoadedImage
from npgemma.machinery.model import Model, without_image_marks
from npgemma.porting import given_tokens
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
            One variant of a mistake, injected meanwhile.
        rows : int, optional
            As many rows; by default one for each token.

        Returns
        -------
        array (n, V)
            Row i holds the logits from which token i is to be chosen. Fewer rows, if the model's context is full.
        """
        with exchanged(changes or {}):
            prompt_ids = self.model.tokenizer.prompt(without_image_marks(self.prompt))
            image_BPD = self._image_tokens(changes or {})
            return given_tokens.decode(self.model, image_BPD, prompt_ids, self.token_ids[:rows])

    def _image_tokens(self, changes):
        """Encode the image; where no change touches that, it was done before."""
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


def touches(changes, parts):
    """Say whether a change is one of these functions', or of one in these modules."""
    return any(name in parts or name.partition(".")[0] in parts for name in changes)
