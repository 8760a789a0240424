"""An answer whose tokens are given: so that two programs can be compared past the token where they part."""

import dataclasses
import os
import pathlib
import re

import numpy as np

from npgemma.answer import find_objects
from npgemma.errors import InputError
from npgemma.files.reading import reading
from npgemma.image import LoadedImage
from npgemma.machinery.backend import to_numpy
from npgemma.machinery.generation import Generation
from npgemma.machinery.model import Model, without_marks
from npgemma.porting.arrays import read_arrays

# One image, or several of one prompt.
Images = LoadedImage | list[LoadedImage]
# Of a list of ids; the longest context takes less.
MOST_BYTES = 10_000_000


def generation(model: Model, image: Images, prompt: str, token_ids: list[int]) -> Generation:
    """Let a model take given tokens, and return them as its answer, without timings."""
    check(token_ids, model)
    run(model, pixels_of(image), prompt_ids(model, prompt), token_ids)
    text, first = model.tokenizer.decode(token_ids), image[0] if isinstance(image, list) else image
    objects, checkpoint = find_objects(text, first.size, model.mask_params), os.fspath(model.folder)
    return Generation(text, token_ids, None, objects, {}, prompt, first.size, checkpoint)


def pixels_of(image: Images) -> np.ndarray:
    """Return the pixels of one image (1, size, size, 3), or of several images of one prompt (1, I, size, size, 3)."""
    if isinstance(image, list):
        return np.stack([one_image.pixels_BYXC for one_image in image], axis=1)
    return image.pixels_BYXC


def prompt_ids(model: Model, prompt: str) -> list[int]:
    """Return a prompt's tokens, ``<bos>`` and newline included."""
    return model.tokenizer.prompt(without_marks(prompt))


def run(model: Model, pixels: np.ndarray, prompt_ids: list[int], token_ids: list[int]) -> np.ndarray:
    """Let a model take given tokens, at least one, as its own answer, and return logits (n, V): row i is what token i
    is chosen from.

    The pixels are those of `pixels_of`; the prompt's ids include ``<bos>`` and the newline. An end token among the
    given ones ends nothing. Raises `InputError` if the model's context is too short for all of them.
    """
    check_room(token_ids, prompt_ids, pixels, model)
    return decode(model, encode(model, pixels), prompt_ids, token_ids)


def encode(model: Model, pixels):
    """Return the image tokens of pixels, of one image or of several of one prompt."""
    backend = model.backend
    with backend.session():
        chosen = backend.encode_image if pixels.ndim == 4 else backend.encode_images
        return chosen(backend.to_activation(pixels), model.params, model.config)


def decode(model, image_BPD, prompt_ids, token_ids):
    """Let a model take given tokens after an encoded image, as `run` does; fewer of them where the context ends."""
    rest = iter(token_ids)
    endless = dataclasses.replace(model, config=dataclasses.replace(model.config, eos_tokens=()))
    return _logits(endless, image_BPD, prompt_ids, lambda logit_V: next(rest), len(token_ids))


def most_probable(model, pixels, prompt_ids, most):
    """Return the most probable tokens of an answer, up to the end token or ``most`` of them."""
    chosen = []

    def choose(logit_V):
        chosen.append(int(logit_V[: model.tokenizer.size].argmax()))
        return chosen[-1]

    _logits(model, encode(model, pixels), prompt_ids, choose, most)
    return chosen


def _logits(model, image_BPD, prompt_ids, choose, most):
    """Return the logits of each token that ``choose`` chooses, as many as the model goes on."""
    backend, rows = model.backend, []

    def choose_and_keep(logit_BV):
        rows.append(to_numpy(logit_BV[0]))
        return backend.to_array(np.array([choose(rows[-1])]))

    ids_BT = backend.to_array(np.array([prompt_ids]))
    settings = model.params, model.config, choose_and_keep, most
    with backend.session():
        for _ in backend.generate(image_BPD, ids_BT, ids_BT == ids_BT, *settings):
            pass
    return np.stack(rows)


def check_room(token_ids, prompt_ids, pixels, model):
    """Raise `InputError` if image, prompt and given tokens do not fit the model's context."""
    context, before = model.config.text.context_length, model.config.image_tokens_of(pixels) + len(prompt_ids)
    if before + len(token_ids) > context:
        raise InputError(
            f"{len(token_ids)} given tokens do not fit: image and prompt take {before} places of the model's context "
            f"of {context}"
        )


def check(token_ids: list[int], model: Model, name: str = "token ids") -> None:
    """Raise `InputError` if there is no token, or one lies outside of the model's vocabulary."""
    rows = model.config.text.vocabulary
    if not token_ids:
        raise InputError("at least one token id should be given, found none")
    if not 0 <= min(token_ids) <= max(token_ids) < rows:
        raise InputError(f"{name} should lie between 0 and {rows - 1}, found {min(token_ids)} to {max(token_ids)}")


def row_of(array: np.ndarray, name: str) -> list[int]:
    """Return token ids from an array that has one row of them; raise `InputError` if it has not."""
    row = array.squeeze()
    if row.ndim > 1 or not row.size or row.dtype.kind not in "iuf":
        raise InputError(f"{name} should be a row of token ids, found {array.dtype} of shape {array.shape}")
    row = row.reshape(-1)
    whole = np.isfinite(row) & (np.floor(row) == row) & (row > -(2.0**31)) & (row < 2.0**31)
    if not whole.all():
        raise InputError(f"{name} should be a row of token ids, found {row[~whole][0]} among them")
    return row.astype(int).tolist()


def read_ids(path: str) -> list[int]:
    """Read the tokens of an answer from a text file of one id a line, or from ``token_ids`` in a .safetensors or .npz
    file; raise `InputError` if it is neither.
    """
    if pathlib.Path(path).suffix in (".safetensors", ".npz"):
        return row_of(read_arrays(path, only=["token_ids"])["token_ids"], f"token_ids in '{path}'")
    with reading(path, "a list of one token id a line", "write whole numbers"):
        if os.path.getsize(path) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        words = pathlib.Path(path).read_text(encoding="utf-8-sig").split()
        wrong = next((i for i, word in enumerate(words) if not re.fullmatch(r"-?\d{1,9}", word, re.ASCII)), None)
        if wrong is not None:
            raise ValueError(f"number {wrong + 1} of {len(words)} is none, or has more than nine digits")
        return list(map(int, words))


def ids_of_trace(arrays: dict[str, np.ndarray]) -> list[int]:
    """Return the answer's tokens as the steps of a trace took them; raise `InputError` if a step is shown without."""
    steps = {int(name.split("/")[0].removeprefix("step.")) for name in arrays if name.startswith("step.")}
    ids = []
    for step in range(max(steps, default=-1) + 1):
        name = f"step.{step}/ids_BT"
        if name not in arrays:
            raise InputError(f"the trace has arrays of step {step} but not its token, {name}: write it too")
        ids.append(row_of(arrays[name], f"the port's {name}")[0])
    return [*ids, 0]  # the logits of the last token are compared, whichever it is
