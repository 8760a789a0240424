"""A loaded model: weights, sizes, tokenizer and backend together; it answers prompts and returns logits.

*Next:* ``params.py``.
"""

import copy
import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import numpy as np

from npgemma import image as images_of
from npgemma.answer import find_objects
from npgemma.config import Config, Gemma2Config
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.machinery.backend import Backend, to_numpy
from npgemma.machinery.generation import Generation
from npgemma.machinery.sampling import Sampling, Settings
from npgemma.params import Array, MaskParams, Params, count, leaves
from npgemma.tokenizer import Tokenizer, open_tokenizer

# What the processors of other programs write in front of a prompt.
MARKS = "<image>", "<bos>"
IN_FRONT = re.compile(rf"(?:\s*(?:{'|'.join(MARKS)}) *)*+")


@dataclass(frozen=True, eq=False)
class Model:
    """PaliGemma with its weights, on a backend.

    Parameters
    ----------
    params : Params
        Of the backend's arrays.
    config : Config
    backend : Backend
    folder : str or os.PathLike
        Where the tokenizer's file is, for those who pass or want text.
    mask_params : MaskParams, optional
        NumPy arrays of the mask codebook; without them answers have no masks.
    load_seconds : float
    loaded_tokenizer : Tokenizer, optional
        The tokenizer, where it has been read; otherwise it is read from the folder when text first goes in or out.
    preprocessing : npgemma.image.Preprocessing
    source : conversion.Source, optional
        Where the checkpoint's parts lie, if it was loaded: ``conversion.read_folder(source, dtype)`` reads them again.

    Notes
    -----
    For another process a model is pickled as the arguments of its ``load``, which opens it again there; it is opened
    here too, and refused with an InputError if it was changed since. A forked child in which the twin runs waits for
    ever if it ran in the parent, since torch's threads do not survive a fork: start processes by ``spawn``.
    """

    params: Params
    config: Config
    backend: Backend
    folder: str | os.PathLike[str] = ""
    mask_params: MaskParams | None = None
    load_seconds: float = 0.0
    loaded_tokenizer: Tokenizer | None = None
    preprocessing: images_of.Preprocessing = images_of.PUBLISHED
    source: Any = None
    # Its ``load`` with all arguments; as this is no field, `dataclasses.replace` does not hand it on.
    opening: ClassVar[Callable[..., "Model"] | None] = None

    def __repr__(self) -> str:
        family = "PaliGemma 2" if isinstance(self.config.text, Gemma2Config) else "PaliGemma"
        side, place = (
            self.config.vision.image_size,
            f"{self.backend.dtype} on {self.backend.name} ({self.backend.device})",
        )
        size = f"{count(self.params):,} parameters, images of {side} x {side} pixels"
        return f"<npgemma.Model {family}: {size}, {place}, from '{shown(os.fspath(self.folder))}'>"

    def __reduce__(self) -> tuple[Any, ...]:
        again = self.opening and self.opening(device="cpu", static=False)
        if not again or not all(map(_is_same, _arrays(self), _arrays(again))):
            raise InputError(
                "a model is pickled as the arguments of its load, but this one was changed since, or did not come from "
                "load: load and change it in the other process"
            )
        return self.opening, ()

    def __copy__(self) -> "Model":
        return self  # it is frozen

    def __deepcopy__(self, memo: dict[int, Any]) -> "Model":
        model = object.__new__(type(self))
        vars(model).update(copy.deepcopy(vars(self), memo))
        return model

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer."""
        return self.loaded_tokenizer or open_tokenizer(self.folder, self.config.text.vocabulary)

    def generate(
        self,
        image: images_of.AnyImage,
        prompt: str = "caption en",
        *,
        watch: Callable[[Generation], None] | None = None,
        **settings: Unpack[Settings],
    ) -> Generation:
        """Answer a prompt about an image.

        Parameters
        ----------
        image : str, os.PathLike, PIL.Image.Image, uint8 array or npgemma.image.LoadedImage
            As for `npgemma.image.load_image`; or pixels that `npgemma.image.load_pixels` returned. For a prompt about
            several images: a list of such images, or their pixels (1, I, size, size, 3).
        prompt : str
            ``<image>`` and ``<bos>`` in front, as Hugging Face's processor writes them, are left out, since image and
            start of the text are put there anyway; elsewhere they stay.
        watch : callable, optional
            Called as ``watch(generation)`` with the growing answer after every token.
        **settings
            The fields of `npgemma.Sampling`, such as ``max_new_tokens=20``.

        Returns
        -------
        Generation

        Raises
        ------
        InputError
            If an argument is invalid, the prompt does not fit the model's context, or a weight is not finite.
        TypeError
            If there is no such setting.
        """
        only = None if watch is None else lambda generations: watch(generations[0])
        return self._answer([image], [prompt], Sampling.of(**settings), only)[0]

    def generate_batch(
        self,
        images: Sequence[images_of.AnyImage],
        prompts: Sequence[str],
        *,
        watch: Callable[[list[Generation]], None] | None = None,
        **settings: Unpack[Settings],
    ) -> list[Generation]:
        """Answer several prompts at once: each as it would be answered alone, but every weight is read once for all.

        Parameters
        ----------
        images : list
            An image for each prompt, each as for `generate`; or one, for all of them. Prompts about several images
            have equally many.
        prompts : list of str
        watch : callable, optional
            Called as ``watch(generations)`` after every token.
        **settings
            As for `generate`, the same for all; but prompt i is answered with the seed ``seed + i``.

        Returns
        -------
        list of Generation
            In the order of the prompts.

        Raises
        ------
        InputError
            As `generate`; and if there are not as many images as prompts.
        """
        return self._answer(images, prompts, Sampling.of(**settings), watch)

    def logits(self, pixels: Array, ids: Array, prefix: int, valid: Array | None = None) -> Array:
        """Return the logits of the next token at every position.

        Parameters
        ----------
        pixels : array (B, size, size, 3) or (B, I, size, size, 3)
            From -1 to 1; I images for each prompt.
        ids : int array (B, T)
            Text tokens, without image tokens.
        prefix : int
            That many of them, from the left, are bidirectional with the image; the rest is causal.
        valid : bool array (B, T), optional
            False marks padding, anywhere in the text.

        Returns
        -------
        array (B, P + T, V)
            P image tokens first, those of several images in their order. In the backend's own kind of array; torch
            can differentiate it in weights and pixels.

        Raises
        ------
        InputError
            If shapes or ids do not fit the model.
        """
        backend = self.backend
        pixels, ids_BT = backend.to_array(pixels), backend.to_array(ids)
        prefix_BT = np.broadcast_to(np.arange(ids_BT.shape[-1]) < prefix, ids_BT.shape)
        valid_BT = backend.to_array(np.ones(ids_BT.shape, dtype=bool) if valid is None else valid) != 0
        self._check(pixels, ids_BT, valid_BT)
        with backend.session(gradients=True):
            image_BPD = self._encode(pixels)
            flags = backend.to_array(prefix_BT), valid_BT
            logit_BSV = backend.logits(image_BPD, ids_BT, *flags, self.params, self.config)
            self._check_finite(logit_BSV)
        return logit_BSV

    def score(self, image: images_of.AnyImage, prompt: str, answers: Sequence[str]) -> list[np.ndarray]:
        """Return the log-probability of every token of given answers, to rank them or to compare programs.

        Parameters
        ----------
        image, prompt
            As for `generate`. The image is encoded once for all answers, which go on together as a batch.
        answers : list of str
            Cut into tokens by the tokenizer, as in training.

        Returns
        -------
        list of float64 array
            For each answer, of its tokens and of ``<eos>`` behind them: without its end "red" would never be less
            probable than "red circle". The probabilities are among all rows of the embedding table, so that minus the
            mean of an array is the loss of that answer in training.

        Raises
        ------
        InputError
            As `generate`; and if the answers are not a list of texts, or one does not fit the context.
        """
        if not (isinstance(answers, (list, tuple)) and answers and all(isinstance(each, str) for each in answers)):
            raise InputError(f"answers should be a list of at least one text, found {shown(repr(answers), 80)}")
        ids_T = self.tokenizer.prompt(without_marks(prompt))
        rows = [[*self.tokenizer.encode(answer), self.tokenizer.eos] for answer in answers]
        with self.backend.session():
            pixels, most = self._loaded(image).pixels_BYXC, self.config.text.context_length
            total = self.config.image_tokens_of(pixels) + len(ids_T) + max(map(len, rows))
            if total > most:
                raise InputError(f"image, prompt and answer have {total} tokens, the context {most}: shorten them")
            return self._forced(self._encode(pixels), ids_T, rows)

    def _forced(self, image_BPD: Array, ids_T: list[int], rows: list[list[int]]) -> list[np.ndarray]:
        """Let each answer take the tokens of its row; return their log-probabilities."""
        backend, columns, found = self.backend, itertools.zip_longest(*rows, fillvalue=0), []

        def choose(logit_BV: Array) -> Array:
            self._check_finite(logit_BV)
            id_B, wide_BV = np.array(next(columns)), to_numpy(logit_BV).astype(np.float64)
            shifted_BV = wide_BV - wide_BV.max(axis=-1, keepdims=True)
            found.append(shifted_BV[np.arange(len(rows)), id_B] - np.log(np.exp(shifted_BV).sum(axis=-1)))
            return backend.to_array(id_B)

        ids_BT = backend.to_array(np.array([ids_T] * len(rows)))
        # Without end tokens no answer ends before its tokens do.
        settings = self.params, dataclasses.replace(self.config, eos_tokens=()), choose, max(map(len, rows))
        list(backend.generate(image_BPD[[0] * len(rows)], ids_BT, ids_BT == ids_BT, *settings))  # to its end
        return [scores[: len(row)] for scores, row in zip(np.stack(found, axis=1), rows)]

    def chooser(self, settings: Sampling, rows: int = 1) -> Callable[[Array], Array]:
        """Return the function that chooses each next token; every row draws as it would alone.

        Parameters
        ----------
        settings : Sampling
        rows : int

        Returns
        -------
        callable
            Takes ``logit_BV`` and returns ``id_B``.
        """
        seeds = [None if settings.seed is None else settings.seed + row for row in range(rows)]
        drawn = [np.random.default_rng(seed) for seed in seeds]
        # Below this every draw is the most probable token anyway, and the division would overflow.
        temperature = max(settings.temperature, 1e-6)
        # Rows of the table past the last piece belong to no token.
        size, backend = self.tokenizer.size, self.backend

        def choose(logit_BV: Array) -> Array:
            self._check_finite(logit_BV)
            if not settings.do_sample or settings.temperature == 0:
                return backend.greedy(logit_BV[:, :size])
            uniform_B = backend.to_array(np.array([randomness.random() for randomness in drawn]))
            return backend.sample(logit_BV[:, :size], uniform_B, temperature, settings.top_k, settings.top_p)

        return choose

    def _answer(
        self,
        images: Sequence[images_of.AnyImage],
        prompts: Sequence[str],
        settings: Sampling,
        watch: Callable[[list[Generation]], None] | None,
    ) -> list[Generation]:
        """Answer prompts about images, as `generate_batch` does."""
        if not prompts or len(images) not in (1, len(prompts)):
            raise InputError(f"expected one image for each of {len(prompts)} prompts, found {len(images)}")
        choose, backend = self.chooser(settings, len(prompts)), self.backend
        ids_BT, valid_BT = self._aligned([self.tokenizer.prompt(without_marks(prompt)) for prompt in prompts])
        with backend.session():
            start = backend.clock()
            loaded = [self._loaded(image) for image in images]
            pixels = self._joined(loaded)
            self._check_room(pixels, ids_BT)
            image_BPD = self._encode(pixels)
            if len(images) < len(prompts):
                image_BPD, loaded = image_BPD[[0] * len(prompts)], loaded * len(prompts)
            seen = backend.clock()
            text = backend.to_array(ids_BT), backend.to_array(valid_BT), self.params, self.config
            rows = _Rows(self, settings, {"load": self.load_seconds, "vision": seen - start}, len(prompts))
            for id_B in backend.generate(image_BPD, *text, choose, settings.max_new_tokens):
                rows.add(id_B.tolist(), backend.clock() - seen)
                if watch:
                    watch(rows.growing())
        return rows.finished([image.size for image in loaded], prompts)

    def _aligned(self, rows: list[list[int]]) -> tuple[Array, Array]:
        """Return prompts of any length as one array that ends together, and which of its tokens are not padding."""
        longest, context = max(len(row) for row in rows), self.config.text.context_length
        if longest > context:
            raise InputError(f"the prompt has {longest} tokens, more than the model's context of {context}: shorten it")
        ids_BT = np.array([[self.config.pad_token] * (longest - len(row)) + row for row in rows])
        valid_BT = np.array([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
        return ids_BT, valid_BT

    def _loaded(self, image: images_of.AnyImage) -> images_of.LoadedImage:
        """Take an image in any form, or pixels that were already made from one; several images as a list of these.

        Boxes of an answer about several images are given in the first one's size.
        """
        side = self.config.vision.image_size
        if isinstance(image, images_of.LoadedImage):
            return image
        if isinstance(image, (list, tuple)) and image:
            loaded = [self._loaded(each) for each in image]
            if any(each.pixels_BYXC.ndim != 4 for each in loaded):
                raise InputError("several images of one prompt should be a list of images, found a list of lists")
            return images_of.LoadedImage(np.stack([each.pixels_BYXC for each in loaded], axis=1), loaded[0].size)
        shape = image.shape if isinstance(image, np.ndarray) and image.dtype.kind == "f" and image.size else ()
        if len(shape) in (4, 5) and shape[:1] + shape[-3:] == (1, side, side, 3):
            return images_of.LoadedImage(np.asarray(image), (side, side))
        return images_of.load_image(image, side, self.preprocessing)

    def _joined(self, loaded: list[images_of.LoadedImage]) -> Array:
        """Return the pixels of all prompts, which have equally many images."""
        shapes = {image.pixels_BYXC.shape for image in loaded}
        if len(shapes) > 1:
            raise InputError("the prompts of a batch should have equally many images each")
        return np.concatenate([image.pixels_BYXC for image in loaded])

    def _encode(self, pixels: Array) -> Array:
        """Encode one image of each prompt (B, size, size, 3), or several (B, I, size, size, 3)."""
        backend = self.backend
        encode = backend.encode_image if pixels.ndim == 4 else backend.encode_images
        return encode(backend.to_activation(pixels), self.params, self.config)

    def _check_room(self, pixels: Array, ids_BT: Array) -> None:
        """Refuse a prompt that leaves no room for an answer."""
        tokens, context = self.config.image_tokens_of(pixels), self.config.text.context_length
        if tokens + ids_BT.shape[1] >= context:
            raise InputError(
                f"the prompt has {ids_BT.shape[1]} tokens, which with {tokens} image tokens do not fit the model's "
                f"context of {context}: shorten it"
            )

    def _check(self, pixels: Array, ids_BT: Array, valid_BT: Array) -> None:
        """Refuse arrays that do not fit the model or each other."""
        size, rows = self.config.vision.image_size, self.config.text.vocabulary
        fits = pixels.ndim in (4, 5) and tuple(pixels.shape[-3:]) == (size, size, 3) and 0 not in pixels.shape[1:]
        if not fits or "float" not in str(pixels.dtype):
            expected = f"floating-point pixels of shape (B, {size}, {size}, 3) or (B, I, {size}, {size}, 3)"
            raise InputError(f"expected {expected}, found {_kind(pixels)}")
        if ids_BT.ndim != 2 or "int" not in str(ids_BT.dtype) or len(ids_BT) != len(pixels):
            expected = f"token ids of shape ({len(pixels)}, T), as many rows as pixels"
            raise InputError(f"expected {expected}, found {_kind(ids_BT)}")
        if 0 not in ids_BT.shape and not 0 <= int(ids_BT.min()) <= int(ids_BT.max()) < rows:
            found = f"{int(ids_BT.min())} to {int(ids_BT.max())}"
            raise InputError(f"token ids should lie between 0 and {rows - 1}, found {found}")
        if valid_BT.shape != ids_BT.shape:
            found = f"{tuple(ids_BT.shape)}, found {tuple(valid_BT.shape)}"
            raise InputError(f"valid should have the shape of ids, {found}")
        if self.config.image_tokens_of(pixels) + ids_BT.shape[1] > self.config.text.context_length:
            self._check_room(pixels, ids_BT)

    def _check_finite(self, logits: Array) -> None:
        """Refuse to go on from NaN, and name the weight that brought it in.

        Any weight that is not a number reaches the logits, so looking at these spares a look at every weight.
        """
        if self.backend.all_finite(logits):
            return
        for name, _, leaf in leaves(self.params):
            if not np.isfinite(to_numpy(leaf)).all():
                raise InputError(
                    f"the weight {name} in '{self.folder}' holds values that are not numbers: download it again"
                )
        dtype = self.backend.dtype
        raise InputError(f"the model in '{self.folder}' overflows {dtype}, although all its weights are finite")


def _arrays(model: Model) -> list[Any]:
    return [array for tree in (model.params, model.mask_params) if tree for _, _, array in leaves(tree)]


def _is_same(ours: Any, theirs: Any) -> bool:
    """Compare two weights; a file that is mapped to be read cannot have been changed."""
    is_mapped = isinstance(ours, np.ndarray) and not ours.flags.writeable
    return is_mapped or np.array_equal(to_numpy(ours), to_numpy(theirs), equal_nan=True)


def without_marks(prompt: str) -> str:
    """Return a prompt without ``<image>`` and ``<bos>`` in front, which other programs write there.

    Examples
    --------
    >>> without_marks("<image>caption en"), without_marks("<image><image><bos> compare")
    ('caption en', 'compare')
    >>> without_marks("what does <image> mean")
    'what does <image> mean'
    """
    if not isinstance(prompt, str):
        raise InputError(f"a prompt should be a text, found {shown(prompt, 80)}")
    return IN_FRONT.sub("", prompt, count=1)


class _Rows:
    """The growing answers of a batch."""

    def __init__(self, model: Model, settings: Sampling, timings: dict[str, float | None], count: int) -> None:
        self.model, self.settings, self.timings = model, settings, timings
        self.ids: list[list[int]] = [[] for _ in range(count)]
        # Seconds from the end of the vision tower to the first and to the newest token of each row.
        self.first, self.newest = [0.0] * count, [0.0] * count

    def add(self, tokens: list[int], seconds: float) -> None:
        """Let every answer grow by its token, unless it has ended."""
        for row, (ids, token) in enumerate(zip(self.ids, tokens)):
            if not self._ended(ids):
                ids.append(token)
                self.newest[row] = seconds
                self.first[row] = self.first[row] or seconds

    def growing(self) -> list[Generation]:
        """Return the answers so far, up to the last character that is complete."""
        decode = self.model.tokenizer.decode_complete
        return [Generation(text=decode(ids), token_ids=list(ids)) for ids in self.ids]

    def finished(self, sizes: list[tuple[int, int]], prompts: Sequence[str]) -> list[Generation]:
        """Return the answers with all that is known of them; ``sizes`` are those of the images."""
        return [self._finished(row, *each) for row, each in enumerate(zip(sizes, prompts))]

    def _finished(self, row: int, size: tuple[int, int], prompt: str) -> Generation:
        ids, text = self.ids[row], self.model.tokenizer.decode(self.ids[row])
        further = len(ids) - 1
        each = (self.newest[row] - self.first[row]) / further if further > 0 else None
        reason = "length" if len(ids) == self.settings.max_new_tokens else "context"
        return Generation(
            text=text,
            token_ids=ids,
            finish_reason="stop" if self._ended(ids) else reason,
            objects=find_objects(text, size, self.model.mask_params),
            timings=self.timings | {"prefill": self.first[row], "seconds_per_token": each},
            prompt=prompt,
            image_size=size,
            checkpoint=os.fspath(self.model.folder),
        )

    def _ended(self, ids: list[int]) -> bool:
        return bool(ids) and ids[-1] in self.model.config.eos_tokens


def _kind(x: Array) -> str:
    """Return an array's dtype and shape in words."""
    return f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"
