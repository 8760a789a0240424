"""big_vision's ``.npz`` files: names and layouts of its flax modules, with all layers of a tower stacked in one array.

Everything else reads the hub's layout, in which a product can use a weight as it lies. So each weight is brought there
once, when it is read: one at a time, from a file that is mapped.
"""

import dataclasses
import mmap
import os
import pathlib
import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion import hub_config
from conversion.layout import StoredLeaf, stored_leaves, with_rows
from conversion.safetensors_file import Stored
from conversion.source import SMALL
from npgemma.config import PUBLISHED
from npgemma.errors import InputError
from npgemma.files.npz import entries, opening
from npgemma.files.reading import read_json

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
# Dtypes by NumPy's words, in those of safetensors; bfloat16 comes as its bits.
WORDS = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "|V2": "BF16"}
# Weights hardly compress; a file that unpacks to more would fill the disk.
MOST_RATIO = 100
# Bytes of the list of its arrays, of which there are 37.
MOST_LISTED = 100_000
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
    if the file is damaged, or its arrays are not those of the configuration; nothing has been unpacked then.
    """
    with opening(path, "a complete npz file", "download it again", most_listed=MOST_LISTED) as archive:
        found = entries(archive, path, prefix=PREFIX)
        if config_file is None:
            config = _recognised(path, found)
        else:
            document = read_json(config_file, most=SMALL)
            config = _with_rows_of(hub_config.from_hub(document, f"'{config_file}'"), found)
        leaves, shapes = layout(config)
        _check(path, found, shapes)
        file: Any = archive.fp
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        arrays = {name: _mapped(archive, entry, content) for name, entry in found.items()}
    pairs = {}
    for name, there in stored_leaves(config).items():
        here, place = leaves[name]
        stored = here.stored_name
        pairs[name] = there, Slice(stored, WORDS[found[stored].dtype.str], arrays[stored], place, here, there)
    return config, pairs


def _mapped(archive, entry, content):
    """Map one member of the archive; one that is compressed is unpacked into an unnamed file first."""
    kind = np.dtype("uint16") if entry.dtype.kind == "V" else entry.dtype
    if entry.info.compress_type != zipfile.ZIP_STORED:
        with tempfile.TemporaryFile() as unpacked, archive.open(entry.info) as member:
            shutil.copyfileobj(member, unpacked, 2**20)
            unpacked.flush()
            return np.memmap(unpacked, kind, "r", entry.start, entry.shape, entry.order)
    # Behind the archive's own header of the member, whose last two lengths may differ from those of its directory.
    head = entry.info.header_offset
    lengths = np.frombuffer(content, "<u2", 2, head + 26)
    return np.ndarray(entry.shape, kind, content, head + 30 + int(lengths.sum()) + entry.start, order=entry.order)


def _recognised(path, found):
    """Return the published variant that has these shapes."""
    shapes = {name: entry.shape for name, entry in found.items()}
    for config in PUBLISHED.values():
        fitting = _with_rows_of(config, found)
        if layout(fitting)[1] == shapes:
            return fitting
    raise InputError(
        f"'{path}' has the shapes of no published PaliGemma, and an npz file does not say its sizes: pass the "
        "config.json of its hub version with --config"
    )


def _with_rows_of(config, found):
    """Return a configuration with as many rows in the table as the file has: the hub adds 64."""
    table = found.get("llm/embedder/input_embedding")
    if table is None or len(table.shape) != 2 or not 0 < table.shape[0] < 2**24:
        return config
    return with_rows(config, table.shape[0])


def _check(path, found, shapes):
    missing, foreign = sorted(shapes.keys() - found.keys()), sorted(found.keys() - shapes.keys())
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"holds {foreign[0]}, which PaliGemma does not have"
        raise InputError(f"'{path}' {what}: is this a checkpoint of big_vision's PaliGemma, and this its config.json?")
    for name, shape in shapes.items():
        entry = found[name]
        if entry.shape != shape or entry.dtype.str not in WORDS:
            raise InputError(
                f"array {name} in '{path}' should be float64, float32, float16 or bfloat16 of shape {shape} by its "
                f"configuration, found {entry.dtype} of shape {entry.shape}"
            )
        if entry.bytes > MOST_RATIO * entry.info.compress_size:
            raise InputError(f"array {name} in '{path}' unpacks to over {MOST_RATIO} times its size: download it again")


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
