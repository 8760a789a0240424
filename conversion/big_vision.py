"""big_vision's ``.npz`` files: names and layouts of its flax modules, with all layers of a tower stacked in one array.

Everything else reads the hub's layout, in which a product can use a weight as it lies. So each weight is brought there
once, when it is read: one at a time, from a file that is mapped.
"""

import ast
import dataclasses
import math
import mmap
import os
import pathlib
import re
import tempfile
import zipfile
from dataclasses import dataclass

import numpy as np

from conversion import hub_config
from conversion.layout import StoredLeaf, stored_leaves, with_rows
from conversion.safetensors_file import Stored
from npgemma.config import PUBLISHED
from npgemma.errors import InputError
from npgemma.files.reading import read_json, reading

PREFIX = "params/"
_BLOCK = "img/Transformer/encoderblock/"
_ATTENTION = _BLOCK + "MultiHeadDotProductAttention_0/"
_TEXT = "llm/layers/"

# Our name: big_vision's name, the place in the stacked array after the layer's, and the axes of what is there.
STORED = {
    "vision.patch_embedding": ("img/embedding/kernel", (), "yxCD"),
    "vision.patch_embedding_bias": ("img/embedding/bias", (), "D"),
    "vision.position_embedding": ("img/pos_embedding", (0,), "TD"),
    "vision.blocks.*.attn_norm.scale": (_BLOCK + "LayerNorm_0/scale", (), "D"),
    "vision.blocks.*.attn_norm.bias": (_BLOCK + "LayerNorm_0/bias", (), "D"),
    "vision.blocks.*.attn.q": (_ATTENTION + "query/kernel", (), "DNH"),
    "vision.blocks.*.attn.q_bias": (_ATTENTION + "query/bias", (), "NH"),
    "vision.blocks.*.attn.k": (_ATTENTION + "key/kernel", (), "DKH"),
    "vision.blocks.*.attn.k_bias": (_ATTENTION + "key/bias", (), "KH"),
    "vision.blocks.*.attn.v": (_ATTENTION + "value/kernel", (), "DKH"),
    "vision.blocks.*.attn.v_bias": (_ATTENTION + "value/bias", (), "KH"),
    "vision.blocks.*.attn.o": (_ATTENTION + "out/kernel", (), "NHD"),
    "vision.blocks.*.attn.o_bias": (_ATTENTION + "out/bias", (), "D"),
    "vision.blocks.*.mlp_norm.scale": (_BLOCK + "LayerNorm_1/scale", (), "D"),
    "vision.blocks.*.mlp_norm.bias": (_BLOCK + "LayerNorm_1/bias", (), "D"),
    "vision.blocks.*.mlp.up": (_BLOCK + "MlpBlock_0/Dense_0/kernel", (), "DF"),
    "vision.blocks.*.mlp.up_bias": (_BLOCK + "MlpBlock_0/Dense_0/bias", (), "F"),
    "vision.blocks.*.mlp.down": (_BLOCK + "MlpBlock_0/Dense_1/kernel", (), "FD"),
    "vision.blocks.*.mlp.down_bias": (_BLOCK + "MlpBlock_0/Dense_1/bias", (), "D"),
    "vision.norm.scale": ("img/Transformer/encoder_norm/scale", (), "D"),
    "vision.norm.bias": ("img/Transformer/encoder_norm/bias", (), "D"),
    "projector.linear": ("img/head/kernel", (), "ED"),
    "projector.bias": ("img/head/bias", (), "D"),
    "text.embedding": ("llm/embedder/input_embedding", (), "VD"),
    "text.blocks.*.attn_norm": (_TEXT + "pre_attention_norm/scale", (), "D"),
    "text.blocks.*.attn_out_norm": (_TEXT + "post_attention_norm/scale", (), "D"),
    "text.blocks.*.attn.q": (_TEXT + "attn/q_einsum/w", (), "NDH"),
    "text.blocks.*.attn.k": (_TEXT + "attn/kv_einsum/w", (0,), "KDH"),
    "text.blocks.*.attn.v": (_TEXT + "attn/kv_einsum/w", (1,), "KDH"),
    "text.blocks.*.attn.o": (_TEXT + "attn/attn_vec_einsum/w", (), "NHD"),
    "text.blocks.*.mlp_norm": (_TEXT + "pre_ffw_norm/scale", (), "D"),
    "text.blocks.*.mlp_out_norm": (_TEXT + "post_ffw_norm/scale", (), "D"),
    "text.blocks.*.mlp.gate": (_TEXT + "mlp/gating_einsum", (0,), "DF"),
    "text.blocks.*.mlp.up": (_TEXT + "mlp/gating_einsum", (1,), "DF"),
    "text.blocks.*.mlp.down": (_TEXT + "mlp/linear", (), "FD"),
    "text.norm": ("llm/final_norm/scale", (), "D"),
}
# Arrays with two parts per layer, or one axis of a single entry.
PARTS = {_TEXT + "attn/kv_einsum/w": 2, _TEXT + "mlp/gating_einsum": 2, "img/pos_embedding": 1}


@dataclass(frozen=True)
class Slice(Stored):
    """One layer's weight in a stacked array."""

    name: str
    dtype: str
    stacked: np.ndarray  # mapped
    place: tuple[int, ...]
    here: StoredLeaf  # in big_vision's layout
    there: StoredLeaf  # in the hub's

    @property
    def array(self):
        """The weight in the hub's layout."""
        return self.there.store(self.here.view(self.stacked[self.place]))

    @property
    def shape(self):
        """In the hub's layout."""
        return self.there.stored_shape

    @property
    def bytes(self):
        """Size in the file."""
        return self.size * self.stacked.itemsize


def layout(config):
    """Return by our names each weight in big_vision's layout and its place in its stacked array; and those arrays'
    shapes.
    """
    leaves, shapes = {}, {}
    layers = {"vision": config.vision.layers, "text": config.text.layers}
    for name, leaf in stored_leaves(config).items():
        stored_name, part, axes = STORED[re.sub(r"\.\d+\.", ".*.", name)]
        number = tuple(map(int, re.findall(r"\.(\d+)\.", name)))
        shape = tuple(leaf.sizes[letter] for letter in axes)
        place = dataclasses.replace(leaf, stored_name=stored_name, stored_axes=axes, stored_shape=shape)
        leaves[name] = place, number + part
        stack = (layers[name.partition(".")[0]],) if number else ()
        stack += (PARTS[stored_name],) if stored_name in PARTS else ()
        shapes[stored_name] = stack + shape
    return leaves, shapes


def open_file(path: pathlib.Path, config_file: str | os.PathLike[str] | None = None):
    """Return the sizes of a checkpoint in an ``.npz``, and by our names every `StoredLeaf` with its `Slice`.

    Without a hub ``config.json`` the sizes are those of the published variant whose shapes the arrays have. InputError
    if the file is damaged, or its arrays are not those of the configuration.
    """
    arrays = read_arrays(path)
    if config_file is None:
        config = _recognised(path, arrays)
    else:
        config = _with_rows_of(hub_config.from_hub(read_json(pathlib.Path(config_file))), arrays)
    leaves, shapes = layout(config)
    _check(path, arrays, shapes)
    pairs = {}
    for name, there in stored_leaves(config).items():
        here, place = leaves[name]
        array, dtype = arrays[here.stored_name]
        pairs[name] = there, Slice(here.stored_name, dtype, array, place, here, there)
    return config, pairs


def read_arrays(path: pathlib.Path) -> dict[str, tuple[np.ndarray, str]]:
    """Map the arrays of an ``.npz``: by names without ``params/``, each with its dtype in the words of safetensors.

    bfloat16 comes as its bits. InputError if the file is not an ``.npz`` of floating-point arrays, or is damaged.
    """
    found = {}
    with (
        reading(path, "a complete npz file", "download it again"),
        zipfile.ZipFile(path) as archive,
        open(path, "rb") as file,
    ):
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy").removeprefix(PREFIX)
            if name in found:
                raise InputError(f"'{path}' holds the array {name} twice")
            found[name] = _array(archive, entry, content, path)
    return found


def _array(archive, entry, content, path):
    """Map one member of the archive; one that is compressed is unpacked into an unnamed file first."""
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        size = int.from_bytes(member.read(2 if version == (1, 0) else 4), "little")
        header = ast.literal_eval(member.read(min(size, 10_000)).decode("latin1"))
        start = 8 + (2 if version == (1, 0) else 4) + size
        shape, kind = tuple(header["shape"]), np.dtype(header["descr"])
        words = {"float32": "F32", "float16": "F16", "float64": "F64", "void16": "BF16"}
        if kind.name not in words or kind.byteorder == ">" or (header["fortran_order"] and len(shape) > 1):
            raise InputError(f"array {entry.filename} in '{path}' should be float32, float16 or bfloat16, found {kind}")
        kind = np.dtype("uint16") if kind.name == "void16" else kind
        if start + math.prod(shape) * kind.itemsize != entry.file_size:
            raise InputError(f"array {entry.filename} in '{path}' is not as long as its shape says: download it again")
        if entry.compress_type != zipfile.ZIP_STORED:
            with tempfile.TemporaryFile() as unpacked:
                while piece := member.read(2**24):
                    unpacked.write(piece)
                unpacked.flush()
                return np.memmap(unpacked, kind, "r", 0, shape), words[np.dtype(header["descr"]).name]
    # Behind the archive's own header of the member, whose last two lengths may differ from those of its directory.
    head = content[entry.header_offset : entry.header_offset + 30]
    start += entry.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    return np.ndarray(shape, kind, content, start), words[np.dtype(header["descr"]).name]


def _recognised(path, arrays):
    """Return the published variant that has these shapes."""
    found = {name: array.shape for name, (array, _) in arrays.items()}
    for config in PUBLISHED.values():
        fitting = _with_rows_of(config, arrays)
        if layout(fitting)[1] == found:
            return fitting
    raise InputError(
        f"'{path}' has the shapes of no published PaliGemma, and an npz file does not say its sizes: pass the "
        "config.json of its hub version with --config"
    )


def _with_rows_of(config, arrays):
    """Return a configuration with as many rows in the table as the file has: the hub adds 64."""
    table = arrays.get("llm/embedder/input_embedding")
    if table is None or table[0].ndim != 2 or not 0 < table[0].shape[0] < 2**24:
        return config
    return with_rows(config, table[0].shape[0])


def _check(path, arrays, shapes):
    missing, foreign = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"holds {foreign[0]}, which PaliGemma does not have"
        raise InputError(f"'{path}' {what}: is this a checkpoint of big_vision's PaliGemma, and this its config.json?")
    for name, shape in shapes.items():
        array, dtype = arrays[name]
        if array.shape != shape or dtype == "F64":
            raise InputError(
                f"array {name} in '{path}' should be float32, float16 or bfloat16 of shape {shape} by its "
                f"configuration, found {dtype} of shape {array.shape}"
            )


def write_file(file, config, arrays, dtype):
    """Write an ``.npz`` into a binary file, one weight in memory at a time.

    ``arrays(name)`` returns an array in our layout, by our name, in the file's ``dtype``; bfloat16 as its bits, ``V2``.
    """
    leaves, shapes = layout(config)
    places = {}
    for name, (leaf, place) in leaves.items():
        places.setdefault(leaf.stored_name, []).append((place, name))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for stored_name, shape in shapes.items():
            with archive.open(f"{PREFIX}{stored_name}.npy", "w", force_zip64=True) as member:
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for _, name in sorted(places[stored_name]):
                    member.write(leaves[name][0].store(arrays(name)).data.cast("B"))
