"""What a port is compared with: a trace with its manifest, read from a file or made on the spot."""

import json
import re
from dataclasses import dataclass

import numpy as np

from npgemma.errors import InputError
from npgemma.tools import forced
from npgemma.tools.arrays import read_arrays, read_manifest
from npgemma.tools.manifest import Manifest, checkpoint_hash
from npgemma.trace import record


@dataclass(frozen=True)
class Reference:
    """A trace of this package.

    Parameters
    ----------
    arrays : dict of str to array
    entries : dict of str to dict
        What the manifest says of each, in the order of the data flow.
    token_ids : list of int
        The tokens that were fed back.
    about : dict
        Of the checkpoint and the question.
    """

    arrays: dict[str, np.ndarray]
    entries: dict[str, dict]
    token_ids: list[int]
    about: dict


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
        If it has no manifest.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise InputError(f"'{path}' has no manifest: make the reference with npgemma trace --out FILE")
    entries = {entry["name"]: entry for entry in manifest.pop("arrays")}
    return Reference(read_arrays(path), entries, manifest["answer"], manifest)


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
    pixels = forced.pixels_of(image)
    if token_ids is None:
        token_ids = forced_by_itself(model, pixels, prompt_ids, most)
    forced.check(token_ids, model)
    manifest = Manifest(model.params)
    with record(watch=manifest.watch) as arrays:
        forced.run(model, pixels, prompt_ids, token_ids)
    words = dict.fromkeys(arrays, "F32")  # the dtypes and offsets of a file, which this is none of
    entries = {entry["name"]: entry for entry in json.loads(manifest.as_json(words))["arrays"]}
    return Reference(arrays, entries, list(token_ids), {"checkpoint": checkpoint_hash(model.params), "ids": prompt_ids})


def forced_by_itself(model, pixels, prompt_ids, most):
    """Return the most probable tokens of an answer, up to the end token."""
    ids = []
    while len(ids) < most and not set(ids) & set(model.config.eos_tokens):
        rows = forced.run(model, pixels, prompt_ids, [*ids, 0])
        ids.append(int(rows[-1][: model.tokenizer.size].argmax()))
    return ids


def kind(name):
    """Return a name without the numbers of its block and step.

    Examples
    --------
    >>> kind("step.2/run_blocks.0/block.3/mid_BTD")
    'step.*/run_blocks.0/block.*/mid_BTD'
    """
    return re.sub(r"\b(block|step)\.\d+", r"\1.*", name)
