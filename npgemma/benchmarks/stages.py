"""Times the stages of an answer: the vision tower, the prefill of image and prompt, and further tokens."""

import math
import statistics
import time
from functools import partial

import numpy as np

PROMPT_TOKENS = 6


class Stages:
    """The stages of a model of ours, on a random image and random tokens; another program's have the same methods.

    At most ``tokens`` steps follow a prefill.
    """

    def __init__(self, model, tokens):
        self.model, self.backend, self.config = model, model.backend, model.config
        self.clock, self.randomness = model.backend.clock, np.random.default_rng(0)
        size, S = self.config.vision.image_size, self.config.image_tokens + PROMPT_TOKENS
        self.capacity = S + tokens
        self.pixels_BYXC = self.backend.to_activation(self.randomness.uniform(-1, 1, (1, size, size, 3)))
        self.prompt = self.inputs(1, PROMPT_TOKENS, PROMPT_TOKENS)

    def inputs(self, batch, new, length):
        """Return the random ids of ``new`` tokens in each row, and the mask of all ``length`` tokens: all are valid."""
        # Below the image token, and within the table.
        highest = min(self.config.text.vocabulary, self.config.image_token)
        ids_BT = self.randomness.integers(4, highest, (batch, new))
        return self.backend.to_array(ids_BT), self.backend.to_array(np.ones((batch, length), dtype=bool))

    def encode(self):
        """Return the image tokens."""
        return self.backend.encode_image(self.pixels_BYXC, self.model.params, self.config)

    def prefill(self, image_BPD):
        """Return the cache that image and prompt fill."""
        cache = self.backend.make_cache(self.config.text, 1, self.capacity, image_BPD)
        self.backend.prefill(image_BPD, *self.prompt, self.model.params, self.config, cache)
        return cache

    def repeat(self, filled, batch):
        """Return a cache of so many rows that all hold what one row holds."""
        cache = self.backend.make_cache(self.config.text, batch, self.capacity, filled.k_LBSKH)
        cache.k_LBSKH[:], cache.v_LBSKH[:], cache.length = filled.k_LBSKH, filled.v_LBSKH, filled.length
        return cache

    def step(self, cache, batch):
        """Prepare a further token of each row; return the function that computes its logits."""
        inputs = self.inputs(batch, 1, cache.length + 1)
        return lambda: self.backend.step(*inputs, self.model.params, self.config, cache)

    def choose(self, logit_BV):
        """Choose tokens as `npgemma.machinery.model.Model.chooser` does."""
        self.backend.all_finite(logit_BV)
        self.backend.greedy(logit_BV).tolist()


def time_stages(stages, batches=(1,), tokens=8, repeats=3, longest=math.inf, progress=lambda what: None):
    """Time each stage: of each the median ``seconds`` and their ``spread`` (highest less lowest, over the median).

    In turn so many prompts of ``batches`` are decoded at once, ``tokens`` steps each after a first one that is not
    counted. Image and prompt are read ``repeats`` times, after a first time that is not counted; but what takes
    ``longest`` seconds the first time is not repeated, and counts. ``progress`` is called with what is measured next.

    ``processor_seconds`` are those of all threads together: they grow less where other programs want the cores too.
    Steps also have ``tokens_per_second``, and ``choosing_seconds`` of a greedy choice.
    """
    progress("the vision tower")
    vision, image = timed(stages.encode, stages.clock, repeats, longest)
    progress("image and prompt")
    prefill, filled = timed(partial(stages.prefill, image), stages.clock, repeats, longest)
    found = {"vision tower": _summary(vision), "prefill": _summary(prefill)}
    for batch in batches:
        progress(f"tokens of {batch} prompts")
        # All rows go on from the same image and prompt: what they read takes as long as if they differed.
        cache, steps, choices = stages.repeat(filled, batch), [], []
        for _ in range(tokens + 1):
            step, logits = timed(stages.step(cache, batch), stages.clock)
            choice, _ = timed(partial(stages.choose, logits), stages.clock)
            steps += step
            choices += choice
        each = _summary(steps[1:])
        rate = {"tokens_per_second": batch / each["seconds"], "choosing_seconds": _summary(choices[1:])["seconds"]}
        found[f"token, batch {batch}"] = each | rate
    return found


def timed(function, clock, repeats=0, longest=math.inf):
    """Call a function once, and ``repeats`` times more; the first time counts where it is the only one.

    It is the only one where it takes ``longest`` seconds. Return of each call the seconds by the clock and those of all
    threads together, and what the function returned at last.
    """
    taken = []
    while not taken or (len(taken) <= repeats and taken[0][0] < longest):
        start, busy = clock(), time.process_time()
        result = function()
        taken.append((clock() - start, time.process_time() - busy))
    return taken[1:] or taken, result


def _summary(taken):
    """Return the median of measured times, and how far they lie apart."""
    seconds, busy = zip(*taken)
    median = statistics.median(seconds)
    spread = (max(seconds) - min(seconds)) / median
    return {"seconds": median, "spread": spread, "processor_seconds": statistics.median(busy)}
