"""Make the golden files: what Hugging Face's PaliGemma computes for tiny random models.

``python tests/golden/make.py`` writes, beside itself, one checkpoint folder for each variant with what Hugging Face
makes of it (``expected.safetensors``, by the names of `npgemma.record`), ``images.safetensors``,
``sampling.safetensors`` and ``about.json``. Run it only to change the goldens: they are a witness because they do not
follow our code.
"""

import importlib.metadata
import json
import pathlib
import re
import sys
import tomllib
from dataclasses import dataclass
from unittest import mock

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

GOLDEN = pathlib.Path(__file__).resolve().parent
PROJECT = GOLDEN.parent.parent
NEW_TOKENS = 8
# Larger arrays are left out: the repository should stay small.
LARGEST_BYTES = 100_000


@dataclass(frozen=True)
class Variant:
    """One tiny model, how its files look, and what it is asked."""

    seed: int
    text: dict
    vision: dict
    naming: str  # of the tensors: "hub" (also "hub with sizes"), "4.52", "5" or "5 saved"
    dtype: torch.dtype  # of the file; Hugging Face calculates in float32
    prompts: tuple  # tokens of each row's prompt
    suffix: int  # tokens of each row's causal suffix
    image_token: int
    eos: tuple = (1,)  # the first is the file's own; if there are several, they are its decoder's
    images: int = 1  # of each prompt
    small: float = 1.0  # scale of the residual streams: where it is small, a norm's epsilon counts


def _text(width, mlp, layers, heads, key_value_heads, head_width, vocabulary):
    return {
        "model_type": "gemma",
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "head_dim": head_width,
        "vocab_size": vocabulary,
    }


def _text_2(width, mlp, layers, heads, key_value_heads, head_width, vocabulary, **more):
    text = _text(width, mlp, layers, heads, key_value_heads, head_width, vocabulary)
    return text | {"model_type": "gemma2"} | more


def _vision(width, mlp, layers, heads, image_size, patch_size):
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": image_size,
        "patch_size": patch_size,
        "vision_use_head": False,
    }


# All sizes within a model differ, so that no two axes can be mistaken for each other.
VARIANTS = {
    # The published models' head width and image size, because the hub's config.json does not say them.
    "hub": Variant(
        seed=101,
        text=_text(24, 40, 2, 3, 1, 256, 97),
        vision=_vision(20, 36, 3, 2, 224, 28),
        naming="hub",
        dtype=torch.float32,
        prompts=(5,),
        suffix=4,
        image_token=257152,
    ),
    "grouped_padded": Variant(
        seed=202,
        text=_text(20, 34, 3, 6, 2, 14, 89),
        vision=_vision(33, 44, 2, 3, 28, 7),
        naming="4.52",
        dtype=torch.float32,
        prompts=(7, 4, 1),
        suffix=5,
        image_token=88,
        eos=(9,),  # which two of the three answers reach, at different times
    ),
    "bfloat16_shards": Variant(
        seed=303,
        text=_text(26, 38, 3, 5, 1, 6, 101),
        vision=_vision(28, 42, 2, 4, 30, 10),
        naming="5 saved",
        dtype=torch.bfloat16,
        prompts=(6, 6),
        suffix=0,
        image_token=100,
    ),
    "float16_small": Variant(
        seed=404,
        text=_text(22, 46, 3, 4, 2, 10, 83),
        vision=_vision(30, 52, 4, 5, 24, 8),
        naming="5",
        dtype=torch.float16,
        prompts=(6,),
        suffix=3,
        image_token=82,
        small=0.02,
    ),
    "two_images": Variant(
        seed=505,
        text=_text(20, 34, 2, 6, 3, 12, 91),
        vision=_vision(24, 38, 2, 3, 28, 7),
        naming="hub with sizes",
        dtype=torch.float32,
        prompts=(6, 3),
        suffix=4,
        image_token=90,
        images=2,
    ),
    # A window shorter than prefix, suffix and answer; a query scale that is not the head width's; caps that bite; layer
    # types that are not the default.
    "gemma2_window": Variant(
        seed=606,
        text=_text_2(
            24, 38, 4, 6, 2, 10, 95, query_pre_attn_scalar=7, attn_logit_softcapping=2.0, final_logit_softcapping=2.5,
            sliding_window=5, layer_types=["full_attention", *["sliding_attention"] * 2, "full_attention"],
        ),
        vision=_vision(20, 36, 2, 4, 28, 7),
        naming="5",
        dtype=torch.float32,
        prompts=(7, 4),
        suffix=9,
        image_token=94,
        eos=(9, 7),  # the second of which ends one answer while the other runs on
    ),
    # The keys of the hub's own config.json, with PaliGemma 1's sizes left at its top level.
    "gemma2_hub": Variant(
        seed=707,
        text=_text_2(
            30, 44, 3, 6, 3, 8, 113, query_pre_attn_scalar=20, attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
            sliding_window=6,
        ),
        vision=_vision(18, 32, 2, 2, 24, 8),
        naming="hub with sizes",
        dtype=torch.bfloat16,
        prompts=(5, 2),
        suffix=7,
        image_token=112,
        eos=(1, 107),
        images=2,
    ),
}  # fmt: skip


def build(variant):
    """Return a model with random weights; nothing in it is zero or one by design."""
    config = transformers.PaliGemmaConfig(
        text_config=dict(variant.text),
        vision_config=dict(variant.vision),
        projection_dim=variant.text["hidden_size"],
        hidden_size=variant.text["hidden_size"],
        vocab_size=variant.text["vocab_size"],
        image_token_index=variant.image_token,
        bos_token_id=2,
        eos_token_id=variant.eos[0],
        pad_token_id=0,
    )
    if len(variant.eos) > 1:
        config.text_config.eos_token_id = list(variant.eos)
    model = transformers.PaliGemmaForConditionalGeneration(config)
    randomness = np.random.default_rng(variant.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = randomness.standard_normal(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(_scaled(name, values, variant.small)))
    return model.to(variant.dtype).eval()


def _scaled(name, values, small):
    """Bring standard normal values to a size at which all parts of the model matter."""
    if name.endswith("language_model.norm.weight"):
        # Factors 1 + w of either sign: otherwise every token would predict itself, for the head is the embedding.
        return -1 + values / small
    if "norm" in name:  # LayerNorm's scale is around 1; RMSNorm's is stored around 0, as are biases
        around = 1 if re.search(r"layer_?norm\d?\.weight", name) and "vision_tower" in name else 0
        return around + 0.3 * values
    if "embed_tokens" in name:
        return values * 1.5 * small / np.sqrt(values.shape[1])
    writes = re.search(r"patch_embedding|position_embedding|out_proj|fc2|multi_modal|o_proj|down_proj", name)
    scale = small if writes else 1.0
    if name.endswith("bias") or "position_embedding" in name:
        return values * 0.3 * scale
    # Sharper attention and louder blocks than usual: what is even or faint can be wrong unseen.
    stress = 1.4 if re.search("[qk]_proj|o_proj|down_proj", name) else 1.0
    return values * scale * stress / np.sqrt(np.prod(values.shape[1:]))


def save(model, variant, folder):
    """Write a checkpoint folder as the variant's generation of files has it."""
    folder.mkdir(parents=True, exist_ok=True)
    if variant.naming == "5 saved":
        model.save_pretrained(folder, max_shard_size="30KB")
        (folder / "generation_config.json").unlink()
        return
    tensors = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    renamed = {rename(name, variant.naming): tensor for name, tensor in tensors.items()}
    renamed.pop(None, None)
    save_tensors(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    document = hub_config(variant) if variant.naming.startswith("hub") else model.config.to_dict()
    (folder / "config.json").write_text(json.dumps(document, indent=1) + "\n")


def rename(name, naming):
    """Turn the name a tensor has in memory into the one in a file, None if it is not stored."""
    if name == "lm_head.weight" and naming != "4.52":
        return None
    if naming.startswith("hub") or naming == "4.52":
        name = name.replace("vision_tower.", "vision_tower.vision_model.")
    if naming.startswith("hub"):
        name = name.removeprefix("model.").replace("language_model.", "language_model.model.")
    return name


def hub_config(variant):
    """Return config.json with the very keys of google/paligemma-3b-pt-224, which leaves much out.

    "hub with sizes" says the image's size, as the hub does for 448 and 896, and the head width, as it does for
    PaliGemma 2; of which the top level keeps hidden_size and num_hidden_layers of other models.
    """
    patches = (variant.vision["image_size"] // variant.vision["patch_size"]) ** 2
    width = variant.text["hidden_size"]
    omitted = () if variant.naming == "hub with sizes" else ("head_dim", "image_size")
    text = {k: v for k, v in variant.text.items() if k not in omitted}
    vision = {k: v for k, v in variant.vision.items() if k not in omitted}
    stale = {}
    if text["model_type"] == "gemma2":
        stale = {"hidden_size": 2048, "num_hidden_layers": 26}
        text |= {"eos_token_id": list(variant.eos), "cache_implementation": "hybrid"}
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "bos_token_id": 2,
        "eos_token_id": variant.eos[0],
        "hidden_size": width,
        "ignore_index": -100,
        "image_token_index": variant.image_token,
        "model_type": "paligemma",
        "pad_token_id": 0,
        "projection_dim": width,
        "text_config": {**text, "num_image_tokens": patches, "torch_dtype": "float32"},
        "torch_dtype": "float32",
        "transformers_version": "4.42.0.dev0",
        "vision_config": {
            **vision,
            "num_image_tokens": patches,
            "projection_dim": width,
            "projector_hidden_act": "gelu_fast",
        },
        "vocab_size": variant.text["vocab_size"],
        **stale,
    }


def load(folder, attention="eager"):
    """Load a folder with Hugging Face in float32, and insist that every tensor found its place."""
    model, report = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    problems = {kind: found for kind, found in report.items() if found}
    assert not problems, f"Hugging Face does not read {folder}: {problems}"
    return model.eval()


def questions(variant):
    """Return images and token ids in our order: shorter prompts have their padding before them."""
    randomness = np.random.default_rng([variant.seed, 1])
    rows, longest, size = len(variant.prompts), max(variant.prompts), variant.vision["image_size"]
    # Waves and noise: patches differ from each other, and within.
    wave = np.sin(np.arange(size) * (10 * np.pi / size))
    several = (variant.images,) if variant.images > 1 else ()
    noise = randomness.integers(0, 128, (rows, *several, size, size, 3))
    pixels = (noise + 64 + 63 * wave[:, None, None] * wave[::-1, None]).astype(np.uint8)
    ids = randomness.integers(3, variant.text["vocab_size"] - 1, (rows, longest + variant.suffix))
    column, start = np.arange(ids.shape[1]), longest - np.array(variant.prompts)[:, None]
    ids = np.select([column < start, column == start], [0, 2], ids)
    return {"pixels": pixels, "ids": ids, "valid": column >= start}


def hugging_face_inputs(model, asked, prefix):
    """Return Hugging Face's arguments for our arrays: it wants padding before the image, and image tokens."""
    text_config, vision = model.config.text_config, model.config.vision_config
    images = asked["pixels"].shape[1] if asked["pixels"].ndim == 5 else 1
    patches = images * (vision.image_size // vision.patch_size) ** 2
    order = row_order(asked["valid"], patches)
    image = np.full((len(order), patches), model.config.image_token_id)
    ids = np.concatenate([image, asked["ids"]], axis=1)
    valid = np.concatenate([image >= 0, asked["valid"]], axis=1)
    back = np.argsort(order, axis=1)
    kinds = np.broadcast_to(np.arange(ids.shape[1]) >= patches + prefix, ids.shape).astype(int)
    assert ids.shape[1] < text_config.max_position_embeddings
    pixels = asked["pixels"].astype(np.float32) / np.float32(127.5) - 1
    pixels = pixels.reshape(-1, *pixels.shape[-3:])
    return {
        "input_ids": torch.from_numpy(np.take_along_axis(ids, back, axis=1)),
        "attention_mask": torch.from_numpy(np.take_along_axis(valid, back, axis=1).astype(int)),
        # Without these, Hugging Face's mask is causal throughout or not at all, by its choice of attention.
        "token_type_ids": torch.from_numpy(kinds),
        "pixel_values": torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
    }


def row_order(valid, patches):
    """Say for each of our columns, image first, which of Hugging Face's it is, padding first."""
    rows = []
    for padding in (~valid).sum(axis=1):
        image, text = padding + np.arange(patches), patches + np.arange(padding, valid.shape[1])
        rows.append(np.concatenate([image, np.arange(padding), text]))
    return np.array(rows)


def observe(model, asked, prefix):
    """Run Hugging Face's model and return its activations under our names and in our order of columns."""
    inputs = hugging_face_inputs(model, asked, prefix)
    seen, handles = {}, []
    for module, names in watched(model, "encode_images.0/" if asked["pixels"].ndim == 5 else ""):
        handles.append(module.register_forward_hook(_keeper(seen, names)))
    with torch.no_grad():
        seen["logits.0/logit_BSV"] = model(**inputs).logits
        # Hugging Face counts positions from 1 and we from 0: for queries and keys it must count as we do.
        positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        modeling = sys.modules[type(model.model.language_model).__module__]
        turn, turned = modeling.apply_rotary_pos_emb, []

        def keep_turned(*arguments):
            turned.append(turn(*arguments))
            return turned[-1]

        with mock.patch.object(modeling, "apply_rotary_pos_emb", keep_turned):
            again = model(**inputs, position_ids=positions).logits
    for handle in handles:
        handle.remove()
    real = inputs["attention_mask"].bool()
    assert (again - seen["logits.0/logit_BSV"])[real].abs().max() < 2e-5 * again.std(), "positions are not relative"
    for i, (q, k) in enumerate(turned):
        path = f"logits.0/run_blocks.0/block.{i}/grouped_query_attention.0/"
        seen[path + "q_BTNH"], seen[path + "k_BSKH"] = q.transpose(1, 2), k.transpose(1, 2)
    return {name: _ours(name, array.numpy(), asked["valid"], model) for name, array in seen.items()}


def watched(model, several):
    """Yield each module to watch with the names of its outputs; with several images, one more call is around them."""
    tower, text = model.model.vision_tower, model.model.language_model
    vision, decode = several + "encode_image.0/encode.0/", "logits.0/run_blocks.0/"
    yield tower.embeddings, [vision + "embed_patches.0/embedded_BTD"]
    yield tower.post_layernorm, [vision + "features_BTD"]
    yield model.model.multi_modal_projector, [several + "encode_image.0/image_BPD"]
    yield text.embed_tokens, ["logits.0/embed_tokens.0/text_BTD"]
    yield text.norm, [decode + "final_BTD"]
    for layers, path, attention in (
        (tower.encoder.layers, vision, "self_attention"),
        (text.layers, decode, "grouped_query_attention"),
    ):
        for i, layer in enumerate(layers):
            block = f"{path}block.{i}/"
            yield layer.self_attn, [block + "attn_out_BTD", f"{block}{attention}.0/attend.0/weight_BKGTS"]
            yield layer.mlp, [block + "mlp_out_BTD"]
            yield layer, [block + "out_BTD"]


def _keeper(seen, names):
    def keep(module, arguments, output):
        outputs = output if isinstance(output, tuple) else (output,)
        for name, array in zip(names, outputs):
            if array is not None:  # sdpa has no attention weights to show
                # The second run, for queries and keys, must not replace the first.
                seen.setdefault(name, array)

    return keep


def _ours(name, array, valid, model):
    """Bring one of Hugging Face's arrays to our axes and columns, with zeros where a query is padding."""
    letters = name.rpartition("_")[2]
    if letters == "BKGTS":
        heads = model.config.text_config if name.startswith("logits") else model.config.vision_config
        groups = getattr(heads, "num_key_value_heads", heads.num_attention_heads)
        array = array.reshape(array.shape[0], groups, -1, *array.shape[2:])
    if not name.startswith("logits"):
        return array
    queries = letters.index("T" if "T" in letters else "S")
    patches = array.shape[queries] - valid.shape[1]
    order, valid = row_order(valid, patches), np.pad(valid, ((0, 0), (patches, 0)), constant_values=True)
    for axis, letter in enumerate(letters):
        if letter in "TS":
            array = np.stack([row.take(columns, axis - 1) for row, columns in zip(array, order)])
    array = np.where(valid.reshape([n if axis in (0, queries) else 1 for axis, n in enumerate(array.shape)]), array, 0)
    return array[:, patches:] if name.endswith("text_BTD") else array


def answer(model, asked, prefix):
    """Return Hugging Face's greedy answer to the prompts alone: tokens, ``<pad>`` after ``<eos>``, and their logits."""
    prompts = {**asked, "ids": asked["ids"][:, :prefix], "valid": asked["valid"][:, :prefix]}
    inputs = hugging_face_inputs(model, prompts, prefix)
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "return_dict_in_generate": True}
    several = model.config.text_config.eos_token_id
    if isinstance(several, list):
        settings["eos_token_id"] = several
    with torch.no_grad():
        output = model.generate(**inputs, **settings, output_logits=True)
    logits = torch.stack(output.logits, dim=1)
    highest = logits.topk(2).values
    assert (highest[..., 0] - highest[..., 1]).min() > 1e-3, "rounding could decide a token: take another seed"
    return {"tokens": output.sequences[:, inputs["input_ids"].shape[1] :].numpy(), "token_logits": logits.numpy()}


def expected(folder, variant):
    """Return the questions of a variant and everything that Hugging Face says to them."""
    asked, prefix = questions(variant), max(variant.prompts)
    model = load(folder)
    arrays = observe(model, asked, prefix)
    if variant.text["model_type"] == "gemma":  # sdpa has no soft-cap
        logits, other = arrays["logits.0/logit_BSV"], observe(load(folder, "sdpa"), asked, prefix)["logits.0/logit_BSV"]
        assert np.abs(other - logits).max() < 2e-5 * logits.std(), "Hugging Face's eager and sdpa disagree"
    small = {name: array for name, array in arrays.items() if array.nbytes <= LARGEST_BYTES}
    return {**asked, **small, **answer(model, asked, prefix)}


def images():
    """Return small images, and the pixels that Hugging Face's processor makes of them."""
    randomness = np.random.default_rng(7)
    processor = transformers.SiglipImageProcessorPil(
        do_convert_rgb=None,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        resample=3,
        rescale_factor=1 / 255,
        size={"height": 28, "width": 28},
    )
    arrays = {}
    for name, shape in {"landscape": (23, 40), "portrait": (61, 19), "dot": (1, 1), "larger": (97, 80)}.items():
        y, x = np.indices(shape) / max(shape)
        smooth = np.stack([x, y, x * y], axis=-1) * 150
        arrays[name] = (smooth + randomness.integers(0, 106, (*shape, 3))).astype(np.uint8)
        pixels = processor(Image.fromarray(arrays[name]), return_tensors="np")["pixel_values"]
        arrays[name + "_pixels"] = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return arrays


# temperature, top-k (0: all), top-p
SETTINGS = [(1.0, 0, 1.0), (0.6, 0, 1.0), (1.7, 5, 1.0), (1.0, 0, 0.9), (0.8, 12, 0.6), (1.2, 9, 0.95), (1.0, 0, 0.01)]


def sampling():
    """Return logits, and the probabilities that Hugging Face's sampler draws from under each setting."""
    logits = np.random.default_rng(8).standard_normal((3, 41)).astype(np.float32) * 2
    probabilities = []
    for temperature, top_k, top_p in SETTINGS:
        scores = transformers.TemperatureLogitsWarper(temperature)(None, torch.from_numpy(logits))
        if top_k:
            scores = transformers.TopKLogitsWarper(top_k)(None, scores)
        scores = transformers.TopPLogitsWarper(top_p)(None, scores)
        probabilities.append(scores.double().softmax(-1).numpy())
    return {"settings": np.array(SETTINGS), "logits": logits, "probabilities": np.stack(probabilities)}


def about():
    """Return what the goldens were made with."""
    return {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
        "variants": {
            name: {
                "seed": v.seed,
                "tensor names": v.naming,
                "dtype": str(v.dtype).removeprefix("torch."),
                "prefix": max(v.prompts),
                "text": v.text["model_type"],
            }
            for name, v in VARIANTS.items()
        },
    }


def pinned():
    """Return the version of transformers that pyproject.toml pins."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return next(r.partition("==")[2] for r in extras["oracle"] if r.startswith("transformers=="))


def main():
    """Write all golden files."""
    if importlib.metadata.version("transformers") != pinned():
        sys.exit(f"the goldens are made with transformers {pinned()}, found {transformers.__version__}: install that")
    transformers.utils.logging.disable_progress_bar()
    for name, variant in VARIANTS.items():
        folder = GOLDEN / name
        for old in folder.glob("*"):
            old.unlink()
        save(build(variant), variant, folder)
        arrays = expected(folder, variant)
        save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, folder / "expected.safetensors")
        print(f"{name}: logits' standard deviation {arrays['logits.0/logit_BSV'].std():.2f}, answers", end=" ")
        print(arrays["tokens"].tolist())
    save_file(images(), GOLDEN / "images.safetensors")
    save_file(sampling(), GOLDEN / "sampling.safetensors")
    (GOLDEN / "about.json").write_text(json.dumps(about(), indent=1) + "\n")
    size = sum(file.stat().st_size for file in GOLDEN.rglob("*.*") if file.suffix != ".py")
    print(f"{size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
