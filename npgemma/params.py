"""The weights as a tree: every array of the model, declared once, with its axes.

``weight_axes("DNH")`` in a declaration is the documentation of the shape, the check when a checkpoint is loaded, and
the shape of random weights. Layouts are the mathematics' (heads split, ``x @ W``): ``conversion/`` makes them
from a checkpoint as views, without copying. The forward pass reads sizes from these shapes, and only what no shape
tells (epsilons, ``rope_theta``) from ``config.py``.

*Next:* ``loss.py``. *Skip on a first reading:* all behind `Params`.
"""

import dataclasses
import math
import typing
from dataclasses import dataclass, field

from npgemma import axes as alphabet
from npgemma.config import Gemma2Config

Array = typing.Any  # numpy.ndarray here, torch.Tensor in the twin: one declaration serves both


def weight_axes(axes):
    """Declare a matrix (or a table, or a kernel): what ``einsum`` multiplies or ``embed_tokens`` looks up."""
    return field(metadata={"axes": axes, "kind": "weight"})


def bias_axes(axes):
    """Declare a term that is added."""
    return field(metadata={"axes": axes, "kind": "bias"})


def gain_axes(axes):
    """Declare a norm's factor for each channel; Gemma's is stored as its difference from 1."""
    return field(metadata={"axes": axes, "kind": "gain"})


@typing.dataclass_transform(frozen_default=True, field_specifiers=(weight_axes, bias_axes, gain_axes))
def weights(part):
    """Make a frozen dataclass of a part of the tree; type checkers see that a field declared above has no default."""
    part.__repr__ = lambda tree: f"{type(tree).__name__}({count(tree):,} parameters)"
    return dataclass(frozen=True)(part)


@weights
class LayerNormParams:
    """A LayerNorm of the vision tower; `npgemma.ops.layer_norm`."""

    scale: Array = gain_axes("D")
    bias: Array = bias_axes("D")


@weights
class VisionAttentionParams:
    """Attention with biases; `npgemma.siglip.self_attention`."""

    q: Array = weight_axes("DNH")
    q_bias: Array = bias_axes("NH")
    k: Array = weight_axes("DKH")
    k_bias: Array = bias_axes("KH")
    v: Array = weight_axes("DKH")
    v_bias: Array = bias_axes("KH")
    o: Array = weight_axes("NHD")
    o_bias: Array = bias_axes("D")


@weights
class VisionMLPParams:
    """`npgemma.siglip.mlp`."""

    up: Array = weight_axes("DF")
    up_bias: Array = bias_axes("F")
    down: Array = weight_axes("FD")
    down_bias: Array = bias_axes("D")


@weights
class VisionBlockParams:
    """`npgemma.siglip.block`."""

    attn_norm: LayerNormParams
    attn: VisionAttentionParams
    mlp_norm: LayerNormParams
    mlp: VisionMLPParams


@weights
class VisionParams:
    """SigLIP; `npgemma.siglip.encode`."""

    patch_embedding: Array = weight_axes("CyxD")
    patch_embedding_bias: Array = bias_axes("D")
    position_embedding: Array = bias_axes("TD")
    blocks: tuple[VisionBlockParams, ...]
    norm: LayerNormParams


@weights
class ProjectorParams:
    """`npgemma.projector.project`."""

    linear: Array = weight_axes("ED")
    bias: Array = bias_axes("D")


@weights
class AttentionParams:
    """Attention without biases; `npgemma.gemma.grouped_query_attention`."""

    q: Array = weight_axes("DNH")
    k: Array = weight_axes("DKH")
    v: Array = weight_axes("DKH")
    o: Array = weight_axes("NHD")


@weights
class MLPParams:
    """`npgemma.gemma.geglu`."""

    gate: Array = weight_axes("DF")
    up: Array = weight_axes("DF")
    down: Array = weight_axes("FD")


@weights
class BlockParams:
    """`npgemma.gemma.block`."""

    attn_norm: Array = gain_axes("D")
    attn: AttentionParams
    mlp_norm: Array = gain_axes("D")
    mlp: MLPParams


@weights
class TextParams:
    """Gemma; `npgemma.gemma.run_blocks`. The embedding table is the output head too."""

    embedding: Array = weight_axes("VD")
    blocks: tuple[BlockParams, ...]
    norm: Array = gain_axes("D")


@weights
class Gemma2BlockParams:
    """`npgemma.gemma2.block`: four norms, each layer's input and output."""

    attn_norm: Array = gain_axes("D")
    attn: AttentionParams
    attn_out_norm: Array = gain_axes("D")
    mlp_norm: Array = gain_axes("D")
    mlp: MLPParams
    mlp_out_norm: Array = gain_axes("D")


@weights
class Gemma2TextParams:
    """Gemma 2; `npgemma.gemma2.run_blocks`."""

    embedding: Array = weight_axes("VD")
    blocks: tuple[Gemma2BlockParams, ...]
    norm: Array = gain_axes("D")


@weights
class Params:
    """The whole model: SigLIP, the projector, Gemma or Gemma 2."""

    vision: VisionParams
    projector: ProjectorParams
    text: TextParams | Gemma2TextParams


@weights
class ConvolutionParams:
    """`npgemma.ops.convolve` and `npgemma.ops.convolve_transposed`."""

    kernel: Array = weight_axes("CyxO")
    bias: Array = bias_axes("O")


@weights
class MaskBlockParams:
    """`npgemma.segmentation.residual_block`."""

    near: ConvolutionParams
    far: ConvolutionParams
    each: ConvolutionParams


@weights
class MaskParams:
    """The mask codebook's decoder; `npgemma.segmentation.decode_masks`. It comes in a file of its own."""

    code: Array = weight_axes("QD")
    first: ConvolutionParams
    blocks: tuple[MaskBlockParams, ...]
    doublings: tuple[ConvolutionParams, ...]
    last: ConvolutionParams


@dataclass(frozen=True)
class Leaf:
    """What a declaration says of one array of the tree."""

    name: str  # "text.blocks.3.attn.q"
    axes: str  # "DNH"
    shape: tuple[int, ...]
    kind: str  # "weight", "bias" or "gain"


def build(config, make):
    """Make the tree of a configuration, asking for its arrays one by one in the order of the data flow.

    Parameters
    ----------
    config : npgemma.config.Config
    make : callable
        ``make(leaf)`` returns the array for a `Leaf`.

    Returns
    -------
    Params
    """
    layers = {"vision": config.vision.layers, "text": config.text.layers}
    sizes = alphabet.sizes(config)
    text = Gemma2TextParams if isinstance(config.text, Gemma2Config) else TextParams

    def grow(kind, name):
        """Make the part of the tree that a dataclass declares: its arrays, its blocks, and parts of its own."""
        types = typing.get_type_hints(kind)
        children = {}
        for entry in dataclasses.fields(kind):
            path, child = f"{name}.{entry.name}".lstrip("."), types[entry.name]
            tower = path.partition(".")[0]
            if "axes" in entry.metadata:
                letters = entry.metadata["axes"]
                shape = tuple(sizes[tower][letter] for letter in letters)
                children[entry.name] = make(Leaf(path, letters, shape, entry.metadata["kind"]))
            elif typing.get_origin(child) is tuple:
                block = typing.get_args(child)[0]
                children[entry.name] = tuple(grow(block, f"{path}.{i}") for i in range(layers[tower]))
            else:
                children[entry.name] = grow(text if path == "text" else child, path)
        return kind(**children)

    return grow(Params, "")


def declared(config):
    """Return the `Leaf` of every array that a model of this configuration has."""
    found = []
    build(config, found.append)
    return found


def leaves(tree, name=""):
    """Yield ``(name, axes, array)`` for every array of a tree or a part of one."""
    for entry in dataclasses.fields(tree):
        path, child = f"{name}.{entry.name}".lstrip("."), getattr(tree, entry.name)
        if "axes" in entry.metadata:
            yield path, entry.metadata["axes"], child
        elif isinstance(child, tuple):
            for i, block in enumerate(child):
                yield from leaves(block, f"{path}.{i}")
        else:
            yield from leaves(child, path)


def count(tree):
    """Return how many numbers the arrays of a tree hold."""
    return sum(math.prod(array.shape) for _, _, array in leaves(tree))


def map_leaves(function, tree):
    """Return a tree of the same shape with ``function`` applied to every array: to cast, to move, to convert.

    Examples
    --------
    The twin's weights are the reference's, seen by torch: ``map_leaves(torch.from_numpy, params)``.
    """
    children = {}
    for entry in dataclasses.fields(tree):
        child = getattr(tree, entry.name)
        if "axes" in entry.metadata:
            children[entry.name] = function(child)
        elif isinstance(child, tuple):
            children[entry.name] = tuple(map_leaves(function, block) for block in child)
        else:
            children[entry.name] = map_leaves(function, child)
    return type(tree)(**children)
