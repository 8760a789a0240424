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
from conversion.patterns import matches
from conversion.refusals import refuse_without_weights
from conversion.source import ADAPTER, SMALL
from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.reading import read_json

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
HEAD, TABLE = "lm_head.weight", "language_model.model.embed_tokens.weight"
# A part of a product, and a module in place of the base's; in a model's own state both may carry the adapter's name.
PART = re.compile(r"(.*)\.lora_((?:embedding_)?[AB])(?:\.(?!(?:weight|bias)$)([^.]+))?(\.weight|\.bias)?")
IN_PLACE = re.compile(r"\.modules_to_save(?:\.([^.]+)(?=\.(?:weight|bias)$))?|\.original_module|\.base_layer")
DTYPES = "F64", "F32", "F16", "BF16"
# Settings by module, and the one for all others.
NUMBERS = ("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")
SHAPE = {
    "peft_type": (str, None), "r": float, "lora_alpha": float, "use_rslora": (bool, None),
    "rank_pattern": ({str: float}, None), "alpha_pattern": ({str: float}, None), "init_lora_weights": (bool, str, None),
    "modules_to_save": ([str], None), "target_modules": ([str], str, None), "ensure_weight_tying": (bool, None),
}  # fmt: skip
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
        """The sum, in float32; what is beyond it becomes infinite, and is refused when the model runs."""
        with np.errstate(all="ignore"):
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
    products, whole = _read_parts(folder)
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
    modules = {}
    for module in products:
        name = _leaf(leaves, canonical(module + ".weight"), f"{module}.lora_A", folder)
        if modules.setdefault(name, module) != module:
            raise InputError(f"'{folder}' holds one module under two names: {modules[name]} and {module}")
    for leaf in _absent(settings, "modules_to_save", r"\..*", products, whole, leaves):
        raise InputError(f"the adapter in '{folder}' lacks {leaf}, which its modules_to_save name: copy it again")
    ranks, alphas = (_numbers(settings, *keys, products, folder) for keys in NUMBERS)
    for name, module in modules.items():
        leaf, tensor = pairs[name]
        rank, bias = ranks[module], products[module].get("B.bias")
        scaling = alphas[module] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        pairs[name] = leaf, Merged(tensor, _delta(module, products[module], leaf, rank, scaling, folder))
        if bias:
            leaf, tensor = pairs[_leaf(leaves, canonical(module + ".bias"), bias.name, folder)]
            _check_shape(bias, leaf.stored_shape, folder)
            pairs[leaf.name] = leaf, Merged(tensor, _bias(bias, scaling))
    return config, pairs


def notes(folder, leaves):
    """Return what an adapter declares and does not hold, where a base with these tensors goes on without."""
    settings, (products, whole) = read_settings(folder), _read_parts(folder)
    found = [(name, matches(settings.get(name) or {}, products, name).items()) for name, _ in NUMBERS]
    said = [f"no module for its {name} {shown(key, 80)}" for name, keys in found for key, fit in keys if not fit]
    # An expression, or names that count in some layers only, do not say which modules they mean.
    some = any(settings.get(key) is not None for key in ("layers_to_transform", "exclude_modules"))
    if isinstance(settings.get("target_modules"), list) and not some:
        absent = _absent(settings, "target_modules", r"\.weight", products, whole, leaves)
        said += [f"nothing for {leaf}, which its target_modules name" for leaf in absent]
    more = f", and {len(said) - 1} more of this kind" if len(said) > 1 else ""
    return [f"the adapter in '{folder}' holds {said[0]}{more}"] if said else []


def read_settings(folder):
    """Read and check ``adapter_config.json``; InputError if it is damaged, or of another kind than LoRA."""
    path = folder / ADAPTER
    settings = read_json(path, SHAPE, SMALL)
    kind, start = settings.get("peft_type"), settings.get("init_lora_weights")
    if kind not in ("LORA", None):
        raise InputError(f"'{folder}' is an adapter of type {kind!r}, not LoRA: merge it with peft and save the model")
    found = [name for key, name in OTHER_KINDS.items() if settings.get(key)]
    found += [name for name in CHANGED_BASE if isinstance(start, str) and start.lower().startswith(name)]
    # What later versions of peft may have.
    found += [key for key, value in settings.items() if value is True and re.match("use_(?!rslora$)", key)]
    if found:
        raise InputError(f"'{folder}' is an adapter with {found[0]}, not plain LoRA: merge it with peft and save it")
    for name, default in NUMBERS:
        for key, value in [(default, settings[default]), *(settings.get(name) or {}).items()]:
            if not 0 < value < 1e9:
                raise InputError(f"'{path}': {key} should be a number above 0, found {value!r}")
    return settings


def _read_parts(folder):
    """Return the parts of the products by module, and by canonical names the tensors that replace others."""
    if not (folder / WEIGHTS).exists():
        refuse_without_weights(folder, WEIGHTS)
    products, whole, adapters = {}, {}, set()
    for tensor in safetensors_file.read(folder / WEIGHTS):
        if tensor.dtype not in DTYPES:
            raise InputError(f"tensor {tensor.name} in '{folder}' should be {', '.join(DTYPES)}, found {tensor.dtype}")
        name = tensor.name.removeprefix(PREFIX)
        part = PART.fullmatch(name)
        if part:
            module, kind, adapter, ending = part.groups()
            place, key = products.setdefault(module, {}), kind + (".bias" if ending == ".bias" else "")
        else:
            saved = IN_PLACE.search(name)
            adapter, place, key = saved and saved[1], whole, canonical(IN_PLACE.sub("", name))
        adapters |= {adapter} if adapter else set()
        if len(adapters) > 1:
            raise InputError(
                f"'{folder}' holds two adapters, {' and '.join(sorted(adapters))}: save one of them with peft"
            )
        if place.setdefault(key, tensor) is not tensor:
            raise InputError(f"'{folder}' holds one tensor under two names: {tensor.name}")
    return products, whole


def _delta(module, parts, leaf, declared, scaling, folder):
    """Return the function that calculates what an adapter adds to one matrix."""
    kinds = sorted(set(parts) - {"B.bias"})
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
    if rank != declared:
        raise InputError(f"'{folder / ADAPTER}' and {WEIGHTS} disagree about the rank of {module}: download both again")

    def delta():
        """Calculate scaling * B @ A in float32."""
        wide_b, wide_a = (x.wide(x.array).astype(np.float32).reshape(n, -1) for x, n in ((b, outputs), (a, rank)))
        product = np.float32(scaling) * (wide_b @ wide_a)
        return (product if kinds[0] == "A" else product.T).reshape(leaf.stored_shape)

    return delta


def _bias(bias, scaling):
    return lambda: np.float32(scaling) * bias.wide(bias.array).astype(np.float32)


def _numbers(settings, name, default, modules, folder):
    """Return the number of every module: that of the first pattern that matches it, or the one for all."""
    given, numbers = settings.get(name) or {}, dict.fromkeys(modules, settings[default])
    for pattern, found in reversed(matches(given, modules, f"'{folder / ADAPTER}': {name}").items()):
        numbers.update(dict.fromkeys(found, given[pattern]))
    return numbers


def _absent(settings, key, end, products, whole, leaves):
    """Return the tensors of the base that a list of modules in the settings means, and the adapter does not hold."""
    held = {canonical(module + ".weight") for module in products} | set(whole) | ({TABLE} if HEAD in whole else set())
    names = [{"lm_head": "embed_tokens"}.get(name, canonical(name)) for name in settings.get(key) or []]
    found = matches([re.escape(name) + end for name in names], leaves, f"the adapter's {key}")
    return [leaf for below in found.values() for leaf in below if leaf not in held]


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
    saved = settings.get("modules_to_save") or []
    trained = any(name.split(".")[-1] in ("embed_tokens", "lm_head") for name in saved)
    if head is None and (table is None or not trained or settings.get("ensure_weight_tying")):
        return
    pair = (table or base), (base if head is None else head)
    if pair[0].shape != pair[1].shape or not np.array_equal(*(x.wide(x.array) for x in pair)):
        raise InputError(f"the adapter in '{folder}' unties the output head from the table, which in PaliGemma are one")


def _resized(config, leaf, rows):
    """Return configuration and leaf for a table of so many rows."""
    leaf = dataclasses.replace(leaf, stored_shape=(rows, *leaf.stored_shape[1:]), sizes=leaf.sizes | {"V": rows})
    return with_rows(config, rows), leaf
