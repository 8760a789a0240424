"""LoRA adapters as peft saves them, merged into the weights at load.

An adapter adds to a matrix W, which stays as it was, the product of two thin ones: ``W + scaling * B @ A``, A of shape
(rank, inputs) and B of shape (outputs, rank) (Hu et al. 2021, arXiv:2106.09685, section 4.1). The scaling is
alpha / rank, or alpha / sqrt(rank) if rank-stabilised (Kalajdzievski 2023, arXiv:2312.03732).
"""

import dataclasses
import math
import re
from dataclasses import dataclass

import numpy as np

from conversion import safetensors_file
from conversion.layout import canonical, with_rows
from conversion.source import ADAPTER
from npgemma.errors import InputError
from npgemma.files.reading import read_json

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
HEAD, TABLE = "lm_head.weight", "language_model.model.embed_tokens.weight"
PART = re.compile(r"(.*)\.lora_(?:(embedding_)?([AB])|(B\.bias))(?:\.weight)?")
# Kinds of adapters that are no plain product of two matrices added to the checkpoint's own weights.
OTHER_KINDS = {
    "use_dora": "DoRA", "use_qalora": "QALoRA", "use_bdlora": "BD-LoRA", "layer_replication": "layer replication",
    "alora_invocation_tokens": "activated LoRA", "arrow_config": "Arrow", "kasa_config": "KaSA",
    "target_parameters": "target_parameters", "trainable_token_indices": "trainable tokens",
    "fan_in_fan_out": "fan_in_fan_out", "megatron_config": "Megatron",
}  # fmt: skip
# Initialisations that also change the weights below the adapter.
CHANGED_BASE = "pissa", "olora", "corda", "loftq", "lora_ga"


@dataclass(frozen=True)
class Merged(safetensors_file.Stored):
    """A tensor with an adapter's part in it; calculated when it is read, since not all need be in memory at once."""

    tensor: safetensors_file.Tensor
    delta: object  # called without arguments; what to add, of the tensor's shape
    dtype: str = "F32"

    @property
    def array(self):
        """The sum, in float32."""
        return self.tensor.wide(self.tensor.array).astype(np.float32, copy=False) + self.delta()

    @property
    def name(self):
        """As stored."""
        return self.tensor.name

    @property
    def shape(self):
        """As stored."""
        return self.tensor.shape

    @property
    def bytes(self):
        """Size of the checkpoint's part in its file."""
        return self.tensor.bytes


def merge(config, pairs, folder):
    """Merge the adapter of a folder into a checkpoint's pairs of stored leaf and tensor, by our names.

    The configuration gets as many rows in the table as the adapter's, if it brings its own. InputError if the adapter
    is damaged, of another kind, or does not fit the checkpoint.
    """
    settings = read_settings(folder)
    products, whole = _sorted(safetensors_file.read(folder / WEIGHTS), folder)
    leaves = {leaf.stored_name: name for name, (leaf, _) in pairs.items()}
    pairs = dict(pairs)
    _check_tied(settings, whole, pairs["text.embedding"][1], folder)
    for stored_name, tensor in whole.items():
        if stored_name == HEAD:
            continue
        leaf = pairs[_leaf(leaves, stored_name, tensor.name, folder)][0]
        if leaf.name == "text.embedding" and len(tensor.shape) == 2 and tensor.shape[1:] == leaf.stored_shape[1:]:
            config, leaf = _resized(config, leaf, tensor.shape[0])
        _check_shape(tensor, leaf.stored_shape, folder)
        pairs[leaf.name] = leaf, tensor
    for module, parts in products.items():
        name = _leaf(leaves, canonical(module + ".weight"), f"{module}.lora_A", folder)
        leaf, tensor = pairs[name]
        pairs[name] = leaf, Merged(tensor, _delta(module, parts, leaf, settings, folder))
        if "bias" in parts:
            name = _leaf(leaves, canonical(module + ".bias"), parts["bias"].name, folder)
            leaf, tensor = pairs[name]
            _check_shape(parts["bias"], leaf.stored_shape, folder)
            pairs[name] = leaf, Merged(tensor, _bias(settings, module, parts))
    return config, pairs


def read_settings(folder):
    """Read and check ``adapter_config.json``; InputError if it is damaged, or of another kind than LoRA."""
    settings = read_json(folder / ADAPTER)
    if not isinstance(settings, dict):
        raise InputError(f"'{folder / ADAPTER}' should hold an object: download it again")
    kind = settings.get("peft_type")
    if kind not in ("LORA", None):
        raise InputError(f"'{folder}' is an adapter of type {kind!r}, not LoRA: merge it with peft and save the model")
    start = settings.get("init_lora_weights")
    found = [name for key, name in OTHER_KINDS.items() if settings.get(key)]
    found += [name for name in CHANGED_BASE if isinstance(start, str) and start.lower().startswith(name)]
    if found:
        raise InputError(f"'{folder}' is an adapter with {found[0]}, not plain LoRA: merge it with peft and save it")
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = settings.get(name) or {}
        if not isinstance(pattern, dict) or not all(_positive(value) for value in pattern.values()):
            raise InputError(f"'{folder / ADAPTER}': {name} should give modules a number above 0")
    for name in ("r", "lora_alpha"):
        value = settings.get(name)
        if not _positive(value):
            raise InputError(f"'{folder / ADAPTER}': {name} should be a number above 0, found {value!r:.80}")
    return settings


def _sorted(tensors, folder):
    """Return the parts of the products by module, and by canonical names the tensors that replace others."""
    products, whole = {}, {}
    for tensor in tensors:
        if tensor.dtype not in ("F32", "F16", "BF16"):
            raise InputError(f"tensor {tensor.name} in '{folder}' should be F32, F16, BF16, found {tensor.dtype}")
        name = tensor.name.removeprefix(PREFIX)
        part = PART.fullmatch(name)
        if part:
            module, embedding, letter, bias = part.groups()
            products.setdefault(module, {})["bias" if bias else (embedding or "") + letter] = tensor
            continue
        for word in (".modules_to_save", ".original_module", ".base_layer"):
            name = name.replace(word, "")
        if whole.setdefault(canonical(name), tensor) is not tensor:
            raise InputError(f"'{folder}' holds one tensor under two names: {tensor.name}")
    return products, whole


def _delta(module, parts, leaf, settings, folder):
    """Return the function that calculates what an adapter adds to one matrix."""
    kinds = [name for name in ("A", "B", "embedding_A", "embedding_B") if name in parts]
    if kinds not in (["A", "B"], ["embedding_A", "embedding_B"]):
        raise InputError(f"'{folder}' holds {' and '.join(kinds) or 'a bias'} of {module}, but should hold A and B")
    a, b = (parts[name] for name in kinds)
    rank = a.shape[0] if a.shape else 0
    inputs = math.prod(leaf.stored_shape[1:]) if kinds[0] == "A" else leaf.stored_shape[0]
    outputs = leaf.stored_shape[0] if kinds[0] == "A" else math.prod(leaf.stored_shape[1:])
    if not rank or a.size != rank * inputs or b.size != rank * outputs or b.shape[:1] != (outputs,):
        raise InputError(
            f"the adapter in '{folder}' has {list(a.shape)} and {list(b.shape)} for {module}, which do not fit a "
            f"weight of shape {list(leaf.stored_shape)}: pass the base that it was trained on"
        )
    if rank != _of(settings, "rank_pattern", "r", module, folder):
        raise InputError(f"'{folder / ADAPTER}' and {WEIGHTS} disagree about the rank of {module}: download both again")
    scaling = _scaling(settings, module, rank, folder)

    def delta():
        """Calculate scaling * B @ A in float32."""
        wide_b, wide_a = (x.wide(x.array).astype(np.float32).reshape(n, -1) for x, n in ((b, outputs), (a, rank)))
        product = np.float32(scaling) * (wide_b @ wide_a)
        return (product if kinds[0] == "A" else product.T).reshape(leaf.stored_shape)

    return delta


def _bias(settings, module, parts):
    scaling, bias = _scaling(settings, module, parts["A"].shape[0], ""), parts["bias"]
    return lambda: np.float32(scaling) * bias.wide(bias.array).astype(np.float32)


def _scaling(settings, module, rank, folder):
    alpha = _of(settings, "alpha_pattern", "lora_alpha", module, folder)
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") is True else rank)


def _of(settings, pattern, default, module, folder):
    """Return a module's own number: that of the first pattern that its path ends in, or the one for all."""
    for key, value in (settings.get(pattern) or {}).items():
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error:
            raise InputError(f"'{folder / ADAPTER}': {pattern} has {key!r:.80}, which is no pattern") from None
    return settings[default]


def _leaf(leaves, stored_name, name, folder):
    if stored_name not in leaves:
        what = "the output head alone" if "lm_head" in stored_name else "a tensor that the base does not have"
        raise InputError(f"the adapter in '{folder}' changes {what}: {name}")
    return leaves[stored_name]


def _check_shape(tensor, shape, folder):
    if tensor.shape != shape:
        raise InputError(
            f"tensor {tensor.name} of the adapter in '{folder}' should have the shape {shape} of the base, found "
            f"{tensor.shape}"
        )


def _check_tied(settings, whole, base, folder):
    """Refuse an adapter that trained the table or the head alone; peft copies such a module, which unties the two."""
    table, head = whole.get(TABLE), whole.get(HEAD)
    saved = settings.get("modules_to_save")
    trained = isinstance(saved, list) and any(str(name).split(".")[-1] in ("embed_tokens", "lm_head") for name in saved)
    if head is None and (table is None or not trained or settings.get("ensure_weight_tying") is True):
        return
    pair = (table or base), (base if head is None else head)
    if pair[0].shape != pair[1].shape or not np.array_equal(*(x.wide(x.array) for x in pair)):
        raise InputError(f"the adapter in '{folder}' unties the output head from the table, which in PaliGemma are one")


def _resized(config, leaf, rows):
    """Return configuration and leaf for a table of so many rows."""
    leaf = dataclasses.replace(leaf, stored_shape=(rows, *leaf.stored_shape[1:]), sizes=leaf.sizes | {"V": rows})
    return with_rows(config, rows), leaf


def _positive(value):
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 < value < 1e9
