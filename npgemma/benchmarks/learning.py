"""Times a step of learning: the loss of a batch of answers, and its gradients in all weights."""

import numpy as np

from npgemma.benchmarks.stages import PROMPT_TOKENS, timed

ROWS, ANSWER_TOKENS = 4, 8


def time_learning(model, gradients, repeats=5):
    """Return the ``seconds`` that each repeat takes, after a first one that is not counted.

    ``gradients(*batch, params, config)`` is `npgemma.backward.paligemma.loss_and_gradients`, or torch's.
    """
    config, length, random = model.config, PROMPT_TOKENS + ANSWER_TOKENS, np.random.default_rng(0)
    side = config.vision.image_size
    pixels = model.backend.to_activation(random.uniform(-1, 1, (ROWS, side, side, 3)))
    highest = min(config.text.vocabulary, config.image_token)
    answer_BT = np.broadcast_to(np.arange(length) >= PROMPT_TOKENS, (ROWS, length))
    ids_BT = random.integers(4, highest, (ROWS, length))
    batch = [ids_BT, ~answer_BT, np.ones_like(answer_BT), answer_BT.copy()]
    given = pixels, *map(model.backend.to_array, batch), model.params, config
    seconds, _ = timed(lambda: gradients(*given), model.backend.clock, repeats)
    return [wall for wall, _ in seconds]
