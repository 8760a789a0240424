"""One inference, recorded: a few arrays whole, of all others their numbers and a thumbnail."""

import fnmatch
import pathlib
from dataclasses import dataclass

import numpy as np

from npgemma import record
from npgemma.axes import suffix
from npgemma.explain.attention_maps import WEIGHTS
from npgemma.explain.attention_mask import MASKS
from npgemma.explain.thumbnails import thumbnail
from npgemma.machinery.model import without_marks

# The arrays that the sections of the page are made from.
WHOLE = (
    "encode_image.0/pixels_BYXC",
    "encode_image.0/encode.0/embed_patches.0/projected_BTD",
    MASKS,
    "*/run_blocks.0/x_BTD",
    "*/run_blocks.0/block.*/out_BTD",
    "*/grouped_query_attention.0/k_BTKH",
    "*/grouped_query_attention.0/v_BTKH",
    WEIGHTS,
    "prefill.0/logit_BV",
    "step.*/logit_BV",
)
# And of these the last token.
LAST = (
    "*/run_blocks.0/block.*/x_BTD",
    "*/grouped_query_attention.0/rotate.0/x_BTNH",
    "*/grouped_query_attention.0/q_BTNH",
    "*/grouped_query_attention.0/attend.0/m*",
    "*/geglu.0/*_BTF",
)


@dataclass(frozen=True)
class Summary:
    """What the page says of an array: numbers of the whole array, and a thumbnail."""

    shape: tuple[int, ...]
    dtype: str
    smallest: float
    mean: float
    largest: float
    thumbnail: np.ndarray


class Recording:
    """Collects what `npgemma.record` finds.

    Attributes
    ----------
    whole : dict of str to array
        Those of `WHOLE`, of attention weights only the row of the last token, since prefill has them for every pair;
        and the last token of those of `LAST`.
    summaries : dict of str to Summary
        Of all arrays.
    calls : dict of str to (str, str)
        The file, such as ``gemma``, and the function that runs at each path of calls.
    bytes : int
        Of all arrays together.
    """

    def __init__(self):
        self.whole, self.summaries, self.calls, self.bytes = {}, {}, {}, 0

    def watch(self, name, value, statement):
        """Note which function binds an array."""
        source = statement.source
        self.calls.setdefault(name.rpartition("/")[0], (pathlib.PurePath(source.file).stem, source.name))

    def sink(self, name, array):
        """Take an array."""
        self.bytes += array.nbytes
        letters = suffix(name.rpartition("/")[2])
        numbers = array.min(), array.mean(dtype=np.float64), array.max()
        self.summaries[name] = Summary(array.shape, str(array.dtype), *map(float, numbers), thumbnail(array, letters))
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in WHOLE):
            self.whole[name] = array[..., -1:, :].copy() if letters == "BKGTS" else array
        elif any(fnmatch.fnmatchcase(name, pattern) for pattern in LAST):
            self.whole[name] = np.take(array, [-1], axis=letters.index("T"))


@dataclass(frozen=True)
class Inference:
    """One inference with everything that the page is made from.

    Parameters
    ----------
    model : npgemma.Model
    image : npgemma.image.LoadedImage
    prompt : str
    prompt_ids : list of int
    answer : npgemma.Generation
    settings : dict
        The keywords of `npgemma.Model.generate`.
    recording : Recording
    """

    model: object
    image: object
    prompt: str
    prompt_ids: list[int]
    answer: object
    settings: dict
    recording: Recording

    @property
    def package(self):
        """The package that ran: ``npgemma`` or ``torch_ref``."""
        return "npgemma" if self.model.backend.name == "numpy" else "torch_ref"

    @property
    def patches(self):
        """The number of image tokens."""
        return self.model.config.image_tokens

    @property
    def grid(self):
        """The number of patches in a row of the image."""
        return round(self.patches**0.5)

    @property
    def prefix(self):
        """The number of tokens before the answer: of the image and of the prompt."""
        return self.patches + len(self.prompt_ids)

    @property
    def tokens(self):
        """The number of the answer's tokens."""
        return len(self.answer.token_ids)

    @property
    def layers(self):
        """The number of the decoder's blocks."""
        return self.model.config.text.layers

    def call(self, token):
        """Return the path of the call whose logits an answer token was chosen from: prefill, or a step."""
        return "prefill.0" if token == 0 else f"step.{token - 1}"

    def block(self, token, layer, name):
        """Return an array of a decoder block, of the call that an answer token was chosen from."""
        return self.recording.whole[f"{self.call(token)}/run_blocks.0/block.{layer}/{name}"]

    def past(self, token, layer, name):
        """Return keys or values (S, K, H) of all tokens up to the position that an answer token was chosen from."""
        calls = range(token + 1)
        return np.concatenate([self.block(each, layer, f"grouped_query_attention.0/{name}")[0] for each in calls])

    def attention(self, token):
        """Return the attention weights (L, N, S) of the position that an answer token was chosen from."""
        name = "grouped_query_attention.0/attend.0/weight_BKGTS"
        layers = [self.block(token, layer, name)[0, ..., -1, :] for layer in range(self.layers)]
        # K key/value heads of G query heads each: query head n is (n // G, n % G).
        return np.stack([weight_KGS.reshape(-1, weight_KGS.shape[-1]) for weight_KGS in layers])

    def logits(self, token):
        """Return the logits that an answer token was chosen from, of rows that stand for a token, in float64."""
        logit_BV = self.recording.whole[f"{self.call(token)}/logit_BV"]
        return logit_BV[0, : self.model.tokenizer.size].astype(np.float64)


def infer(model, image, prompt, settings):
    """Answer a prompt about an image, and record it.

    Parameters
    ----------
    model : npgemma.Model
    image : npgemma.image.LoadedImage
    prompt : str
    settings : dict

    Returns
    -------
    Inference
    """
    recording = Recording()
    with record(sink=recording.sink, watch=recording.watch):
        answer = model.generate(image, prompt, **settings)
    ids = model.tokenizer.prompt(without_marks(prompt))
    return Inference(model, image, prompt, ids, answer, settings, recording)
