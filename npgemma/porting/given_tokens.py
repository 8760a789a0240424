"""An answer whose tokens are given: so that two programs can be compared past the token where they part."""

import dataclasses
import pathlib

import numpy as np

from npgemma.answer import find_objects
from npgemma.errors import InputError
from npgemma.machinery.backend import to_numpy
from npgemma.machinery.model import Generation, without_image_marks


def generation(model, image, prompt, token_ids):
    """Return given tokens as a model's answer, after the model has taken them.

    Parameters
    ----------
    model : npgemma.Model
    image : npgemma.image.LoadedImage or list of LoadedImage
    prompt : str
    token_ids : list of int

    Returns
    -------
    npgemma.Generation
        Without timings.
    """
    check(token_ids, model)
    run(model, pixels_of(image), model.tokenizer.prompt(without_image_marks(prompt)), token_ids)
    text, first = model.tokenizer.decode(token_ids), image[0] if isinstance(image, list) else image
    return Generation(text, token_ids, objects=find_objects(text, first.size, model.mask_params))


def pixels_of(image):
    """Return the pixels of one image, or of several images of one prompt.

    Parameters
    ----------
    image : npgemma.image.LoadedImage or list of LoadedImage

    Returns
    -------
    array (1, size, size, 3) or (1, I, size, size, 3)
    """
    if isinstance(image, list):
        return np.stack([each.pixels_BYXC for each in image], axis=1)
    return image.pixels_BYXC


def run(model, pixels, prompt_ids, token_ids):
    """Let a model take given tokens as its own answer.

    Parameters
    ----------
    model : npgemma.Model
    pixels : array (1, size, size, 3) or (1, I, size, size, 3)
    prompt_ids : list of int
        ``<bos>``, prompt, newline.
    token_ids : list of int
        At least one. An end token among them ends nothing.

    Returns
    -------
    array (n, V)
        As many rows as tokens: row i holds the logits from which token i is to be chosen.

    Raises
    ------
    InputError
        If the model's context is too short for all of them.
    """
    check_room(token_ids, prompt_ids, pixels, model)
    return decode(model, encode(model, pixels), prompt_ids, token_ids)


def encode(model, pixels):
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

    def noting(logit_BV):
        rows.append(to_numpy(logit_BV[0]))
        return backend.to_array(np.array([choose(rows[-1])]))

    ids_BT = backend.to_array(np.array([prompt_ids]))
    with backend.session():
        for _ in backend.generate(image_BPD, ids_BT, ids_BT == ids_BT, model.params, model.config, noting, most):
            pass
    return np.stack(rows)


def check_room(token_ids, prompt_ids, pixels, model):
    """Refuse more tokens than fit the model's context, as `run` says."""
    context, before = model.config.text.context_length, model.config.image_tokens_of(pixels) + len(prompt_ids)
    if before + len(token_ids) > context:
        raise InputError(
            f"{len(token_ids)} given tokens do not fit: image and prompt take {before} places of the model's context "
            f"of {context}"
        )


def check(token_ids, model):
    """Refuse tokens that the model does not have.

    Parameters
    ----------
    token_ids : list of int
    model : npgemma.Model

    Raises
    ------
    InputError
        If there is none, or one lies outside of the vocabulary.
    """
    rows = model.config.text.vocabulary
    if not token_ids:
        raise InputError("at least one token id should be given, found none")
    if not 0 <= min(token_ids) <= max(token_ids) < rows:
        raise InputError(f"token ids should lie between 0 and {rows - 1}, found {min(token_ids)} to {max(token_ids)}")


def read_ids(path):
    """Read the tokens of an answer.

    Parameters
    ----------
    path : str
        A text file of one id a line; or a file of logits (.safetensors or .npz) with an array ``token_ids``.

    Returns
    -------
    list of int

    Raises
    ------
    InputError
        If the file is neither.
    """
    if pathlib.Path(path).suffix in (".safetensors", ".npz"):
        from npgemma.porting.arrays import read_arrays

        found = read_arrays(path, only=["token_ids"])["token_ids"]
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise InputError(
                f"token_ids in '{path}' should be a row of whole numbers, found {found.dtype} {found.shape}"
            )
        return found.tolist()
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        return [int(word) for word in text.split()]
    except OSError as problem:
        raise InputError(f"cannot read '{path}': {problem.strerror}") from None
    except ValueError:
        raise InputError(f"'{path}' should hold one token id a line, as whole numbers") from None
