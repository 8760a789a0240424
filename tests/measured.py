"""Runs a checkpoint in both backends and measures how far they are apart.

``test_checkpoint.py`` asserts what is measured here; ``conftest.py`` prints it and writes it for ``--report``.
"""

import dataclasses
import time

import numpy as np
import torch
from PIL import Image

import npgemma
from conversion.folder import open_folder, plain
from npgemma.command.parity import twin_of
from npgemma.image import load_pixels
from npgemma.machinery.backend import numpy_backend, to_numpy
from npgemma.params import build, map_leaves
from npgemma.porting.backends import Comparison
from npgemma.porting.bounds import BOUNDS, DEVICE_FACTOR
from torch_ref.backend import to_torch, torch_backend

PROMPTS = ("caption en", "answer en how many objects", "detect red circle")
TOKENS = 4
# Images with prompts: the first three have every image and every prompt, for models that take long.
PAIRS = (
    ("photo", PROMPTS[0]),
    ("example", PROMPTS[1]),
    ("example", PROMPTS[2]),
    ("example", PROMPTS[0]),
    ("photo", PROMPTS[1]),
    ("photo", PROMPTS[2]),
)
# Prompts of two lengths: answered at once, the first is padded.
SHORT, LONG = PAIRS[:2]
# Of the memory that is free, what the largest things may take; the rest is for products and their temporary arrays.
SHARE = 0.8


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


class Choosing:
    """A model that notes the logits and choices of every token.

    Parameters
    ----------
    model : npgemma.Model
    forced : list of int, optional
        Tokens to go on with, whatever the model chooses: what follows is then calculated from the same input as in
        the run that these tokens come from.

    Attributes
    ----------
    model : npgemma.Model
        The same, but noting.
    logits : list of arrays (B, V)
    choices : list of lists of int
    """

    def __init__(self, model, forced=None):
        self.logits, self.choices, self.forced, self.size = [], [], forced, model.tokenizer.size
        self.backend = model.backend
        self.model = dataclasses.replace(model, backend=dataclasses.replace(model.backend, generate=self._generate))

    def _generate(self, image_BPD, ids_BT, valid_BT, p, config, choose, max_new_tokens):
        def note(logit_BV):
            """Choose as the model does, but note it."""
            id_B = choose(logit_BV)
            self.logits.append(to_numpy(logit_BV[:, : self.size]))
            self.choices.append(id_B.tolist())
            return (
                id_B if self.forced is None else self.backend.to_array(np.array([self.forced[len(self.choices) - 1]]))
            )

        return self.backend.generate(image_BPD, ids_BT, valid_BT, p, config, note, max_new_tokens)


@dataclasses.dataclass(frozen=True)
class Answer:
    """One image and prompt in both backends."""

    report: dict  # of the Comparison
    ids: list  # the port's tokens, with which both went on
    choices: dict  # by backend: what each chose after the same tokens
    logits: dict  # by backend: array (step, V)


class Measured:
    """A checkpoint in both backends in one dtype, the weights in memory once on the CPU.

    Parameters
    ----------
    folder : pathlib.Path
    dtype : str
        ``float32``; or ``bfloat16``, in which NumPy holds the same weights but calculates in float32.
    device : str
        The twin's.
    """

    def __init__(self, folder, dtype, device="cpu"):
        self.port = npgemma.load(folder, dtype=dtype)
        self.twin = twin_of(self.port, device)
        self.dtype = dtype
        self.backends = {"numpy": self.port, "torch": self.twin}
        self.bound = BOUNDS[dtype] * DEVICE_FACTOR[device]
        size = self.port.config.vision.image_size
        self.pixels = {name: load_pixels(image(), size) for name, image in IMAGES.items()}
        self.answers = {}
        self.seconds = seconds_of_a_pass(self.port.config, dtype, device)

    def answer(self, image, prompt):
        """Answer once, and compare every named array of both backends on the way.

        Returns
        -------
        Answer
        """
        if (image, prompt) not in self.answers:
            self.answers[image, prompt] = self._answer(image, prompt)
        return self.answers[image, prompt]

    def _answer(self, image, prompt):
        start = time.perf_counter()
        # Whatever is asked about an image, it is encoded alike.
        only = "[!e]*" if image in {seen for seen, _ in self.answers} else "*"
        # Only the first trace is held; each array of the second is compared as it comes.
        ours = Choosing(self.port)
        with npgemma.record(only) as trace:
            ids = ours.model.generate(self.pixels[image], prompt, max_new_tokens=TOKENS).token_ids
        comparison, theirs = Comparison(trace, self.bound), Choosing(self.twin, ids)
        with npgemma.record(only, comparison.sink):
            theirs.model.generate(self.pixels[image], prompt, max_new_tokens=TOKENS)
        choices = {"numpy": [row[0] for row in ours.choices], "torch": [row[0] for row in theirs.choices]}
        report = comparison.report(choices["numpy"], choices["torch"]) | {
            "trace_bytes": sum(array.nbytes for array in trace.values()),
            "seconds": time.perf_counter() - start,
        }
        logits = {"numpy": np.concatenate(ours.logits), "torch": np.concatenate(theirs.logits)}
        return Answer(report, ids, choices, logits)

    def one_pass(self, pairs, backend):
        """Return the logits at every token of the port's answers, in one pass of all without a cache.

        Prompts are padded to the length of `LONG`'s, answers to that of the longest.

        Returns
        -------
        list of arrays (step, V)
        """
        model, answers = self.backends[backend], [self.answer(*pair).ids for pair in pairs]
        prompts = [model.tokenizer.prompt(prompt) for _, prompt in pairs]
        # Padding on the left and on the right, so that prompts end together: what comes after them looks back only.
        prefix = max(len(model.tokenizer.prompt(prompt)) for _, prompt in [*pairs, LONG])
        before = [prefix - len(prompt) for prompt in prompts]
        after = [max(map(len, answers)) - len(answer) for answer in answers]
        rows = [
            [0] * left + prompt + answer[:-1] + [0] * right
            for left, prompt, answer, right in zip(before, prompts, answers, after, strict=True)
        ]
        valid = [
            [False] * left + [True] * (len(prompt) + len(answer) - 1) + [False] * right
            for left, prompt, answer, right in zip(before, prompts, answers, after, strict=True)
        ]
        pixels = np.concatenate([self.pixels[image] for image, _ in pairs])
        logit_BSV = model.logits(pixels, rows, prefix, valid)
        start = self.port.config.image_tokens + prefix - 1
        return [
            to_numpy(logit_SV[start : start + len(answer), : model.tokenizer.size])
            for logit_SV, answer in zip(logit_BSV, answers, strict=True)
        ]


def seconds_of_a_pass(config, dtype, device="cpu"):
    """Estimate how long the slower backend takes for image and prompt, from the speed of one product.

    Not every processor multiplies bfloat16 natively; torch takes many times as long there.
    """
    vision, text = config.vision, config.text
    x = torch.ones((config.image_tokens, text.width), dtype=getattr(torch, dtype), device=device)
    # As a checkpoint stores it: rows are what comes out.
    weight = torch.ones((text.mlp_width, text.width), dtype=x.dtype, device=device).T
    times = []
    for _ in range(2):
        start = time.perf_counter()
        # Without a number on the host, CUDA would still be at work.
        (x @ weight)[0, 0].item()
        times.append(time.perf_counter() - start)
    sizes = block_sizes(config)
    numbers = vision.layers * sizes["vision"] + text.layers * sizes["text"]
    return min(times) * numbers / (text.width * text.mlp_width)


def affordable_pairs(seconds):
    """Return how many of `PAIRS` to answer, so that the largest model takes minutes."""
    return len(PAIRS) if seconds < 5 else 3 if seconds < 40 else 1


def largest_margin(expected_V, found_V):
    """Return how close two logits must be that rounding of the measured size may exchange: six standard deviations.

    Two logits whose errors are independent and as large as the root mean square of all differ from their right
    distance by sqrt(2) times that, and by six times as much in one of 500 million cases.
    """
    error = np.sqrt(np.mean((found_V.astype(np.float64) - expected_V) ** 2))
    return 6 * np.sqrt(2) * float(error)


class _Blocks:
    """Blocks whose weights are made when a pass comes to them and forgotten when it goes on."""

    def __init__(self, names, make):
        self.names, self.make = names, make

    def __iter__(self):
        return map(self.make, self.names)


def float64(folder, image, prompt, blocks):
    """Compare every named array of a first token in float64, the weights of one block in memory at a time.

    Parameters
    ----------
    folder : pathlib.Path
    image : str
        One of `IMAGES`.
    prompt : str
    blocks : dict of str to int
        How many of each tower to calculate, from `fitting_blocks`.

    Returns
    -------
    dict
        The report of the `Comparison`.
    """
    config, pairs = open_folder(folder)
    config = dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, layers=blocks["vision"]),
        text=dataclasses.replace(config.text, layers=blocks["text"]),
    )
    names = build(config, lambda leaf: leaf.name)

    def make(part):
        """Read a part of the tree."""

        def read(name):
            """Read an array."""
            leaf, tensor = pairs[name]
            return leaf.view(plain(tensor, "float64"))

        return map_leaves(read, part)

    towers = {tower: dataclasses.replace(getattr(names, tower), blocks=()) for tower in blocks}
    port_params = make(dataclasses.replace(names, **towers))
    twin_params = to_torch(port_params, "float64")

    def with_blocks(params, make):
        """Put blocks into a tree that has none."""
        parts = {tower: _Blocks(getattr(names, tower).blocks, make) for tower in blocks}
        return dataclasses.replace(
            params,
            **{tower: dataclasses.replace(getattr(params, tower), blocks=part) for tower, part in parts.items()},
        )

    port = npgemma.Model(with_blocks(port_params, make), config, numpy_backend("float64"), folder)
    twin_params = with_blocks(twin_params, lambda part: to_torch(make(part), "float64"))
    twin = npgemma.Model(twin_params, config, torch_backend("float64"), folder)
    pixels = load_pixels(IMAGES[image](), config.vision.image_size)
    start = time.perf_counter()
    with npgemma.record() as trace:
        ids = port.generate(pixels, prompt, max_new_tokens=1).token_ids
    comparison = Comparison(trace, BOUNDS["float64"])
    with npgemma.record(sink=comparison.sink):
        other_ids = twin.generate(pixels, prompt, max_new_tokens=1).token_ids
    return comparison.report(ids, other_ids) | {
        "trace_bytes": sum(array.nbytes for array in trace.values()),
        "seconds": time.perf_counter() - start,
    }


def fitting_blocks(config, free):
    """Return how many blocks of each tower `float64` can take.

    Parameters
    ----------
    config : Config
    free : int or None
        Bytes; None where the system does not say, which is taken for enough.

    Returns
    -------
    dict of str to int
    """
    layers = {"vision": config.vision.layers, "text": config.text.layers}
    if free is None:
        return layers
    # The table; and of blocks the old one, the new one and what it is made from.
    held = config.text.vocabulary * config.text.width + 3 * max(block_sizes(config).values())
    part = (SHARE * free / 8 - held) / trace_size(config)
    return {tower: max(0, int(min(1, part) * count)) for tower, count in layers.items()}


def needed_memory(config, dtype):
    """Return how many bytes `Measured` needs: the weights; and a trace, or the logits of two rows in three copies."""
    layers = {"vision": config.vision.layers, "text": config.text.layers}
    weights = sum(layers[tower] * size for tower, size in block_sizes(config).items())
    weights += config.text.vocabulary * config.text.width
    logits = 2 * 3 * (config.image_tokens + 32) * config.text.vocabulary
    return int(1.05 * (weights * {"float32": 4, "bfloat16": 2}[dtype] + max(trace_size(config), logits) * 4))


def block_sizes(config):
    """Return how many numbers the weights of a block of each tower have, without the small ones."""
    vision, text = config.vision, config.text
    return {
        "vision": 2 * vision.width * (2 * vision.width + vision.mlp_width),
        "text": text.width * (2 * (text.query_heads + text.key_value_heads) * text.head_width + 3 * text.mlp_width),
    }


def trace_size(config):
    """Return about how many numbers the trace of an answer has."""
    vision, text, T = config.vision, config.text, config.image_tokens
    of_vision = T * (18 * vision.width + 3 * vision.heads * T + vision.mlp_width)
    heads = text.query_heads * text.head_width
    T += 32
    of_text = T * (9 * text.width + 8 * heads + 3 * text.query_heads * T + 2 * text.mlp_width)
    return vision.layers * of_vision + text.layers * of_text
