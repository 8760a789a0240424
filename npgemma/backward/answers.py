"""Right answers as a batch, and their gradients with all that can be wrong refused."""

from dataclasses import dataclass

import numpy as np

from npgemma.backward.paligemma import loss_and_gradients
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.machinery.model import without_marks
from npgemma.params import leaves


@dataclass(frozen=True)
class Batch:
    """Images with prompts and right answers: the arrays of `npgemma.backward.paligemma.loss_and_gradients`."""

    pixels: np.ndarray
    ids_BT: np.ndarray
    prefix_BT: np.ndarray
    valid_BT: np.ndarray
    answer_BT: np.ndarray


def batch_of(model, pixels, prompts, answers):
    """Return prompts and their right answers, padded on the right, as one batch; pixels are of each prompt, or of all.

    An answer is a text, to which ``<eos>`` is added, or a list of token ids. One that is too long is refused: cut off,
    it would lose its end token, and teach the model not to stop.
    """
    if not prompts or len(prompts) != len(answers) or len(pixels) not in (1, len(prompts)):
        found = f"{len(answers)} answers and {len(pixels)} images"
        raise InputError(f"expected a right answer and an image for each of {len(prompts)} prompts, found {found}")
    if wrong := [answer for answer in answers if not isinstance(answer, (str, list))]:
        raise InputError(f"an answer should be a text, found {shown(wrong[0], 80)}")
    words = model.tokenizer
    questions = [words.prompt(without_marks(prompt)) for prompt in prompts]
    replies = [each if isinstance(each, list) else [*words.encode(each), words.eos] for each in answers]
    rows = [[*question, *reply] for question, reply in zip(questions, replies)]
    longest, room = max(map(len, rows)), model.config.text.context_length - model.config.image_tokens_of(pixels)
    if longest > room:
        raise InputError(f"a prompt and its answer have {longest} tokens, and there is room for {room}: shorten them")
    ids_BT = np.array([row + [model.config.pad_token] * (longest - len(row)) for row in rows])
    prefix_BT, valid_BT = (np.arange(longest) < [[len(part)] for part in parts] for parts in (questions, rows))
    seen = np.broadcast_to(model.backend.to_activation(pixels), (len(rows), *pixels.shape[1:]))
    return Batch(seen, ids_BT, prefix_BT, valid_BT, valid_BT & ~prefix_BT)


def gradients(batch, p, config):
    """Return loss and gradients of a batch, as `npgemma.backward.paligemma.loss_and_gradients`, or raise InputError."""
    for name, _, weight in leaves(p):
        if str(weight.dtype) not in ("float32", "float64"):
            raise InputError(f"{name} is held as {weight.dtype}, to which a step is too small: load float32 or float64")
    ids, rows = batch.ids_BT, config.text.vocabulary
    if not batch.answer_BT[:, 1:].any():
        raise InputError("expected a token of an answer that has a loss, found none in the batch: give answers")
    if not 0 <= ids.min() <= ids.max() < rows:
        raise InputError(f"token ids should lie between 0 and {rows - 1}, found {ids.min()} to {ids.max()}")
    loss, dpixels, dp = loss_and_gradients(*vars(batch).values(), p, config)
    if wrong := [name for name, _, dweight in leaves(dp) if not np.isfinite(dweight).all()]:
        raise InputError(f"the gradients of {', '.join(wrong[:3])} are not finite: take a lower rate, or load float64")
    return loss, dpixels, dp
