"""What a port is compared with: a trace with its manifest, read from a file or made on the spot."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npgemma.errors import InputError
from npgemma.fast.dtypes import DTYPES
from npgemma.machinery.model import Model
from npgemma.porting import given_tokens
from npgemma.porting.arrays import read_arrays, read_manifest
from npgemma.probe.manifest import FORMAT, Entry, Manifest, checkpoint_hash, read_entries
from npgemma.probe.recording import record

# Where a trace has the pixels of one image, and of several images of one prompt.
PIXELS = ("encode_images.0/pixels_BIYXC", "encode_image.0/pixels_BYXC")


@dataclass(frozen=True)
class Reference:
    """A trace of this package.

    Parameters
    ----------
    arrays : dict of str to array
    entries : dict of str to npgemma.probe.manifest.Entry
        What the manifest says of each, in the order of the data flow.
    token_ids : list of int
        The tokens that were fed back.
    about : dict
        Of the checkpoint and the question.
    model : npgemma.Model, optional
        What made it, on the NumPy backend: with it a port's arrays can be recalculated.
    pixels : array, optional
        What the model was shown.
    """

    arrays: dict[str, np.ndarray]
    entries: dict[str, Entry]
    token_ids: list[int]
    about: dict
    model: Model | None = None
    pixels: np.ndarray | None = None


def from_trace(path):
    """Read a trace that ``npgemma trace`` has written.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    Reference

    Raises
    ------
    InputError
        If it has no manifest, or one that `npgemma.probe.manifest.Manifest` does not write.
    """
    arrays, manifest = read_arrays(path), read_manifest(path)
    if manifest is None or manifest["format"] != FORMAT or manifest["dtype"] not in DTYPES:
        found = "no manifest" if manifest is None else "a manifest of another format or an unknown dtype"
        raise InputError(f"'{path}' has {found}: make the reference with npgemma trace --out FILE")
    shapes = {name: array.shape for name, array in arrays.items()}
    entries = read_entries(manifest.pop("arrays"), shapes, f"the manifest in '{path}'")
    return Reference(arrays, entries, manifest["answer"], manifest)


def with_model(reference: Reference, load: Callable[[str], Model]) -> Reference:
    """Return a stored reference with its model: ``load(dtype)``, if its weights are those of the trace and the trace
    holds the pixels; otherwise the reference as it is.
    """
    pixels = next((reference.arrays[name] for name in PIXELS if name in reference.arrays), None)
    # int8 is a rounding of the reference's own, from which no right port can be recalculated.
    if pixels is None or reference.about["dtype"] == "int8":
        return reference
    model = load(reference.about["dtype"])
    if checkpoint_hash(model.params) != reference.about["checkpoint"]:
        return reference
    prompt_ids, size = reference.about["ids"], model.config.vision.image_size
    given_tokens.check(prompt_ids, model, "ids of the trace")
    given_tokens.check(reference.token_ids, model, "the answer of the trace")
    if (pixels.shape[0], *pixels.shape[-3:]) != (1, size, size, 3) or not np.isfinite(pixels).all():
        raise InputError(f"the pixels of the trace should be finite and {size} x {size}: write the trace again")
    given_tokens.check_room(reference.token_ids, prompt_ids, pixels, model)
    return dataclasses.replace(reference, model=model, pixels=pixels)


def from_model(model, image, prompt_ids, token_ids=None, most=4):
    """Trace a model on the spot.

    Parameters
    ----------
    model : npgemma.Model
    image : npgemma.image.LoadedImage
    prompt_ids : list of int
    token_ids : list of int, optional
        The tokens that the port chose; by default, the most probable ones.
    most : int
        The longest answer where ``token_ids`` is left out.

    Returns
    -------
    Reference
    """
    pixels = given_tokens.pixels_of(image)
    if token_ids is None:
        token_ids = given_tokens.most_probable(model, pixels, prompt_ids, most)
    given_tokens.check(token_ids, model)
    given_tokens.check_room(token_ids, prompt_ids, pixels, model)
    return traced(model, pixels, prompt_ids, list(token_ids))


def traced(model: Model, pixels: np.ndarray, prompt_ids: list[int], token_ids: list[int]) -> Reference:
    """Trace a model that is given its tokens; the pixels are those of `given_tokens.run`."""
    manifest = Manifest(model.params)
    with record(watch=manifest.watch) as arrays:
        given_tokens.decode(model, given_tokens.encode(model, pixels), prompt_ids, token_ids)
    about = {"checkpoint": checkpoint_hash(model.params), "ids": prompt_ids}
    return Reference(arrays, manifest.entries, token_ids, about, model, pixels)


def kind(name):
    """Return a name without the numbers of its block and step.

    Examples
    --------
    >>> kind("step.2/run_blocks.0/block.3/mid_BTD")
    'step.*/run_blocks.0/block.*/mid_BTD'
    """
    return re.sub(r"\b(block|step)\.\d+", r"\1.*", name)
