"""A loaded model: weights, sizes and tokenizer together, with the two things people do with them."""

import functools
import pathlib
import sys
import time
from dataclasses import dataclass, field

import numpy as np

import conversion
from npgemma import generate, image, paligemma
from npgemma.errors import InputError
from npgemma.ops import widen
from npgemma.params import leaves
from npgemma.tokenizer import Tokenizer
from npgemma.trace import to_numpy

DTYPES = ("float32", "float64", "bfloat16", "int8")


def embedded_checkpoint():
    """Return the folder of the checkpoint that comes with the project."""
    return pathlib.Path(__file__).resolve().parent.parent / "tiny"


def example_picture():
    """Return the path of the picture that comes with the project."""
    return embedded_checkpoint() / "example.png"


def load(path=None, dtype="float32", progress=None):
    """Load a checkpoint folder for the NumPy backend.

    Parameters
    ----------
    path : str or os.PathLike, optional
        A folder in the hub's layout; by default the embedded checkpoint.
    dtype : str
        ``float32``; ``float64`` for proofs; ``bfloat16`` holds the matrices so, in half the memory, and widens them
        to float32 whenever they are used (NumPy cannot calculate in bfloat16); ``int8`` holds them in a quarter, as
        whole numbers with a factor for each row (`npgemma.fast.int8`), which costs some accuracy.
    progress : callable, optional
        Called as ``progress(done, total)`` in bytes while weights are read.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        If the folder is not a PaliGemma checkpoint, is damaged, or its weights do not fit into memory.
    """
    folder = pathlib.Path(embedded_checkpoint() if path is None else path)
    start = time.perf_counter()
    params, config = conversion.read_folder(folder, dtype, progress)
    return Model(params, config, folder, dtype, time.perf_counter() - start)


def check_settings(max_new_tokens, temperature, top_p, top_k, seed):
    """Refuse settings of `Model.generate` that cannot be."""
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens should be at least 1, found {max_new_tokens}")
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature should be a number above 0, found {temperature}")
    if not 0 < top_p <= 1:
        raise InputError(f"top-p should be above 0 and at most 1, found {top_p}")
    if top_k is not None and top_k < 1:
        raise InputError(f"top-k should be at least 1, found {top_k}")
    if seed is not None and seed < 0:
        raise InputError(f"the seed should be 0 or more, found {seed}")


@dataclass
class Generation:
    """An answer, and how long its parts took."""

    text: str = ""
    token_ids: list = field(default_factory=list)
    # Seconds: "load" (of the model, once), "vision", "prefill" (from there to the first token), and "seconds_per_token"
    # of each further one (None if there was none).
    timings: dict = field(default_factory=dict)


class Model:
    """PaliGemma with its weights, on the NumPy backend.

    Parameters
    ----------
    params : Params
    config : Config
    folder : pathlib.Path
        Where ``tokenizer.model`` is, for those who pass or want text.
    dtype : str
    load_seconds : float
    """

    # The twin differs in these modules and in the small methods below.
    paligemma, sampling = paligemma, generate

    def __init__(self, params, config, folder, dtype="float32", load_seconds=0.0):
        self.params, self.config, self.dtype = params, config, dtype
        self.folder, self.load_seconds = pathlib.Path(folder), load_seconds

    def to_backend(self, x):
        """Hand a NumPy array to the backend."""
        return x

    def to_activation(self, x):
        """Hand pixels to the backend in the dtype it calculates in."""
        return x.astype("float64" if self.dtype == "float64" else "float32", copy=False)

    def clock(self):
        """Return the time in seconds, after all work that was begun has ended."""
        return time.perf_counter()

    def peak_bytes(self):
        """Return the most memory that this process has held, or None where the system does not say."""
        try:
            import resource
        except ImportError:  # not on Windows
            return None
        # Linux counts in kilobytes, macOS in bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    @functools.cached_property
    def tokenizer(self):
        """The folder's tokenizer; reading it is put off until text goes in or out."""
        tokenizer = Tokenizer(self.folder / "tokenizer.model")
        rows = self.config.text.vocabulary
        if tokenizer.size > rows:
            raise InputError(
                f"the tokenizer in '{self.folder}' has {tokenizer.size} pieces, but the model has only {rows} "
                "embedding rows: take the tokenizer.model that belongs to this checkpoint"
            )
        return tokenizer

    def generate(
        self,
        image,
        prompt="caption en",
        max_new_tokens=100,
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
        seed=None,
        watch=None,
    ):
        """Answer a prompt about a picture.

        Parameters
        ----------
        image : str, os.PathLike, PIL.Image.Image or uint8 array
            As for `npgemma.image.load_pixels`; or pixels that it returned.
        prompt : str
        max_new_tokens : int
            The most tokens of the answer.
        do_sample : bool
            Draw by probability instead of taking the most probable token. The next four count only then.
        temperature : float
        top_p : float
        top_k : int, optional
        seed : int, optional
            The same seed gives the same answer.
        watch : callable, optional
            Called as ``watch(generation)`` with the growing answer after every token.

        Returns
        -------
        Generation

        Raises
        ------
        InputError
            If an argument cannot be, the prompt does not fit the model's context, or a weight is not finite.
        """
        only = None if watch is None else lambda generations: watch(generations[0])
        settings = max_new_tokens, do_sample, temperature, top_p, top_k, seed
        return self.generate_batch([image], [prompt], *settings, only)[0]

    def generate_batch(
        self,
        images,
        prompts,
        max_new_tokens=100,
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
        seed=None,
        watch=None,
    ):
        """Answer several prompts at once: each as it would be answered alone, but every weight is read once for all.

        Parameters
        ----------
        images : list
            A picture for each prompt, each as for `generate`; or one, for all of them.
        prompts : list of str
        max_new_tokens, do_sample, temperature, top_p, top_k : optional
            As for `generate`, the same for all.
        seed : int, optional
            Prompt i is answered with the seed ``seed + i``.
        watch : callable, optional
            Called as ``watch(generations)`` after every token.

        Returns
        -------
        list of Generation
            In the order of the prompts. Their timings are those of all together.

        Raises
        ------
        InputError
            As `generate`; and if there are not as many pictures as prompts.
        """
        check_settings(max_new_tokens, temperature, top_p, top_k, seed)
        if not prompts or len(images) not in (1, len(prompts)):
            raise InputError(f"expected one picture for each of {len(prompts)} prompts, found {len(images)}")
        choose = self.chooser(do_sample, temperature, top_p, top_k, seed, len(prompts))
        ids_BT, valid_BT = self._aligned([self.tokenizer.prompt(prompt) for prompt in prompts])
        self._check_room(ids_BT)
        start = self.clock()
        pixels_BYXC = np.concatenate([self._pixels(picture) for picture in images])
        image_BPD = self.paligemma.encode_image(self.to_activation(pixels_BYXC), self.params, self.config)
        if len(images) < len(prompts):
            image_BPD = image_BPD[[0] * len(prompts)]
        seen = self.clock()
        timings = {"load": self.load_seconds, "vision": seen - start}
        generations = [Generation(timings=timings) for _ in prompts]
        arguments = image_BPD, self.to_backend(ids_BT), self.to_backend(valid_BT), self.params, self.config
        for step, id_B in enumerate(self.sampling.generate(*arguments, choose, max_new_tokens)):
            for generation, token in zip(generations, id_B.tolist()):
                self._add(generation, token)
            if step == 0:
                first = self.clock()
                timings |= {"prefill": first - seen, "seconds_per_token": None}
            else:
                timings["seconds_per_token"] = (self.clock() - first) / step
            if watch:
                watch(generations)
        for generation in generations:
            generation.text = self.tokenizer.decode(generation.token_ids)
        return generations

    def logits(self, pixels, ids, prefix, valid=None):
        """Score the next token at every position.

        Parameters
        ----------
        pixels : array (B, size, size, 3)
            From -1 to 1.
        ids : int array (B, T)
            Text tokens, without picture tokens.
        prefix : int
            That many of them, from the left, are bidirectional with the picture; the rest look back.
        valid : bool array (B, T), optional
            False marks padding, anywhere in the text.

        Returns
        -------
        array (B, P + T, V)
            P picture tokens first. In the backend's own kind of array.

        Raises
        ------
        InputError
            If shapes or ids do not fit the model.
        """
        pixels_BYXC, ids_BT = np.asarray(pixels), np.asarray(ids)
        prefix_BT = np.broadcast_to(np.arange(ids_BT.shape[-1]) < prefix, ids_BT.shape)
        valid_BT = np.ones(ids_BT.shape, dtype=bool) if valid is None else np.asarray(valid, dtype=bool)
        self._check(pixels_BYXC, ids_BT, valid_BT)
        image_BPD = self.paligemma.encode_image(self.to_activation(pixels_BYXC), self.params, self.config)
        flags = self.to_backend(prefix_BT), self.to_backend(valid_BT)
        logit_BSV = self.paligemma.logits(image_BPD, self.to_backend(ids_BT), *flags, self.params, self.config)
        self._check_finite(logit_BSV)
        return logit_BSV

    def chooser(self, do_sample, temperature, top_p, top_k, seed, rows=1):
        """Return the function that chooses each next token; every row draws as it would alone."""
        drawn = [np.random.default_rng(None if seed is None else seed + row) for row in range(rows)]
        # Below this every draw is the most probable token, and logits divided by it would overflow.
        temperature = max(temperature, 1e-6)
        # Rows of the table past the last piece belong to no token.
        size = self.tokenizer.size

        def choose(logit_BV):
            """Choose a token for each row."""
            self._check_finite(logit_BV)
            if not do_sample:
                return self.sampling.greedy(logit_BV[:, :size])
            uniform_B = self.to_backend(np.array([randomness.random() for randomness in drawn]))
            return self.sampling.sample(logit_BV[:, :size], uniform_B, temperature, top_k, top_p)

        return choose

    def _aligned(self, rows):
        """Return prompts of any length as one array that ends together, and which of its tokens are no padding."""
        longest = max(len(row) for row in rows)
        ids_BT = np.array([[self.config.pad_token] * (longest - len(row)) + row for row in rows])
        valid_BT = np.array([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
        return ids_BT, valid_BT

    def _add(self, generation, token):
        """Let an answer grow by a token, unless it has ended."""
        ids = generation.token_ids
        if not ids or ids[-1] != self.config.eos_token:
            ids.append(token)
            generation.text = self.tokenizer.decode_complete(ids)

    def _pixels(self, picture):
        """Take a picture in any form, or pixels that were already made from one."""
        size = self.config.vision.image_size
        ready = isinstance(picture, np.ndarray) and picture.shape == (1, size, size, 3) and picture.dtype.kind == "f"
        return picture if ready else image.load_pixels(picture, size)

    def _check_room(self, ids_BT):
        """Refuse a prompt that leaves no room for an answer."""
        used, context = self.config.image_tokens + ids_BT.shape[1], self.config.text.context_length
        if used >= context:
            raise InputError(
                f"the prompt has {ids_BT.shape[1]} tokens, which with {self.config.image_tokens} picture tokens do not "
                f"fit the model's context of {context}: shorten it"
            )

    def _check(self, pixels_BYXC, ids_BT, valid_BT):
        """Refuse arrays that do not fit the model or each other."""
        size, rows = self.config.vision.image_size, self.config.text.vocabulary
        if pixels_BYXC.shape[1:] != (size, size, 3) or pixels_BYXC.dtype.kind != "f":
            expected = f"floating-point pixels of shape (B, {size}, {size}, 3)"
            raise InputError(f"expected {expected}, found {pixels_BYXC.dtype} of shape {pixels_BYXC.shape}")
        if ids_BT.ndim != 2 or ids_BT.dtype.kind not in "iu" or len(ids_BT) != len(pixels_BYXC):
            expected = f"token ids of shape ({len(pixels_BYXC)}, T), one row for each picture"
            raise InputError(f"expected {expected}, found {ids_BT.dtype} of shape {ids_BT.shape}")
        if ids_BT.size and not 0 <= ids_BT.min() <= ids_BT.max() < rows:
            found = f"{ids_BT.min()} to {ids_BT.max()}"
            raise InputError(f"token ids should lie between 0 and {rows - 1}, found {found}")
        if valid_BT.shape != ids_BT.shape:
            raise InputError(f"valid should have the shape of ids, {ids_BT.shape}, found {valid_BT.shape}")
        if self.config.image_tokens + ids_BT.shape[1] > self.config.text.context_length:
            self._check_room(ids_BT)

    def _check_finite(self, logits):
        """Refuse to go on from NaN, and name the weight that brought it in.

        Any weight that is not a number reaches the logits, so looking at these spares a look at every weight.
        """
        if np.isfinite(to_numpy(logits)).all():
            return
        for name, _, leaf in leaves(self.params):
            if not np.isfinite(widen(to_numpy(leaf))).all():
                raise InputError(
                    f"the weight {name} in '{self.folder}' holds values that are not numbers: download it again"
                )
        raise InputError(f"the model in '{self.folder}' overflows {self.dtype}, although all its weights are finite")
