"""Small valid files of every kind that npgemma reads, and how each is read: `mutants.py` damages them."""

import contextlib
import io
import json
import pathlib
import shutil
import sys

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import conversion  # noqa: E402
import npgemma  # noqa: E402
from conversion import codebook, convert, safetensors_file, write  # noqa: E402
from npgemma.command import compare, generate, inspect, trace  # noqa: E402
from npgemma.command.arguments import parser_of  # noqa: E402
from npgemma.config import FULL, SLIDING, Config, Gemma2Config, TextConfig, VisionConfig  # noqa: E402
from npgemma.image import load_image  # noqa: E402
from npgemma.params import leaves  # noqa: E402
from npgemma.porting import given_tokens, read_arrays  # noqa: E402
from npgemma.porting.logits import read_answer  # noqa: E402
from npgemma.tokenizer import open_tokenizer  # noqa: E402

SOUND = "sound"  # the folder of files that are not damaged
WORDS = ROOT / "tests" / "golden" / "tokenizers"
IMAGES = {
    "rgb.png": ("RGB", {}), "palette.png": ("P", {"transparency": 3}), "grey-16.png": ("I;16", {}), "bit.png": ("1", {}),
    "alpha.png": ("LA", {}), "scans.jpg": ("RGB", {"progressive": True}), "cmyk.jpg": ("CMYK", {}), "rgb.ppm": ("RGB", {}),
    "two.mpo": ("RGB", {"save_all": True}), "lossy.webp": ("RGB", {}), "moving.webp": ("RGBA", {"save_all": True}),
    "moving.gif": ("P", {"save_all": True, "transparency": 0}), "rgb.bmp": ("RGB", {}), "palette.bmp": ("P", {}),
    "plain.tiff": ("RGBA", {}), "jpeg.tiff": ("RGB", {"compression": "jpeg"}), "grey.pgm": ("I;16", {}),
    "float.tiff": ("F", {"compression": "tiff_lzw"}), "fax.tiff": ("1", {"compression": "group4"}),
    "alpha.avif": ("RGBA", {}),
}  # fmt: skip
VISION = VisionConfig(width=6, mlp_width=5, layers=1, heads=2, image_size=8, patch_size=4)
TEXT = {"width": 8, "mlp_width": 7, "query_heads": 2, "key_value_heads": 1, "head_width": 4, "vocabulary": 716}
TEXT |= {"layers": 2, "context_length": 64}
ADDED = {"content": "<word>", "id": 714, "lstrip": True, "single_word": True, "normalized": False}
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "rank_pattern": {"k_proj": 1}, "modules_to_save": ["linear"]}
LORA |= {"alpha_pattern": {r"layers\.\d+\.self_attn\.q_proj": 4}}
ADAPTED = {"q_proj": (2, 8), "k_proj": (1, 4)}  # rank and outputs
RULE = '[["mid.{i}@{pass}"]]\nours = "{pass}/run_blocks.0/block.{i}/mid_BTD"\naxes = "TD"\nscale = 1.0\n'


def make(home):
    """Write the valid files, in a folder for each of `READERS`."""
    for name in READERS:
        (home / name / SOUND).mkdir(parents=True)
    gemma = Config(VISION, TextConfig(**TEXT), image_token=709)
    gemma_2 = Config(VISION, Gemma2Config(**TEXT, layer_types=(SLIDING, FULL)), image_token=709)
    _checkpoint(home / "hub", gemma, "float32", 10**6, "tokenizer.model")
    _checkpoint(home / "shards", gemma_2, "bfloat16", 8_000, "tokenizer.json")
    _checkpoint(home / "adapter" / SOUND, gemma, "float16", 10**6, "tokenizer.model")
    convert.convert(home / "shards", home / "npz" / "model.npz", "float32")
    shutil.copy(home / "shards" / "config.json", home / "npz")
    shutil.copy(WORDS / "bpe" / "tokenizer.json", home / "npz")
    arrays = {name: np.ones(shape, np.float32) for name, shape in codebook.layout(8, 8).items()}
    np.savez_compressed(home / "codebook" / codebook.FILE, **arrays)
    _adapter(home / "adapter")
    for name in ("tokenizer.model", "tokenizer.json"):
        shutil.copy(WORDS / "bpe" / name, home / "words")
    for folder in (home / "hub", home / "words"):
        _json(folder / "added_tokens.json", {"<more>": 713})
        _json(folder / "tokenizer_config.json", {"added_tokens_decoder": {"714": ADDED, "2": {"content": "<bos>"}}})
    _images(home / "image")
    _ports(home, home / "port")


def _checkpoint(folder, config, dtype, shard_bytes, tokenizer):
    tree = {name: array for name, _, array in leaves(conversion.random_params(config, 0))}
    write.write_folder(folder, config, lambda leaf: leaf.store(tree[leaf.name]), dtype, shard_bytes)
    shutil.copy(WORDS / "unigram" / tokenizer, folder)
    _json(folder / "generation_config.json", {"eos_token_id": [1, 107], "bos_token_id": 2})


def _adapter(folder):
    names = {
        f"language_model.model.layers.0.self_attn.{module}.lora_{letter}.weight": (rank, 8) if letter == "A" else (out, rank)
        for module, (rank, out) in ADAPTED.items() for letter in "AB"
    } | {"multi_modal_projector.linear.modules_to_save.weight": (8, 6)}  # fmt: skip
    entries = [("base_model.model." + name, "F32", shape) for name, shape in names.items()]
    arrays = [np.ones(shape, np.float32) for shape in names.values()]
    safetensors_file.write(folder / "adapter_model.safetensors", entries, arrays)
    _json(folder / "adapter_config.json", LORA | {"base_model_name_or_path": SOUND})


def _images(folder):
    Y, X = np.mgrid[:14, :18]
    image, exif = Image.fromarray(np.stack([X * 13, Y * 17, X * Y], -1).astype(np.uint8)), Image.Exif()
    exif[0x0112] = 6  # rotated
    for name, (mode, options) in IMAGES.items():
        drawn = (image.convert("L") if mode in ("I;16", "F") else image).convert(mode)
        more = {"append_images": [drawn.rotate(90)]} if "save_all" in options else {"exif": exif}
        with contextlib.suppress(KeyError, OSError):  # a Pillow without AVIF
            drawn.save(folder / name, **options, **more)


def _ports(home, folder):
    """Write traces, a port's arrays with its map, logits and ids."""
    for name in ("port", "reference"):
        file = folder / f"{name}.safetensors"
        run(trace, "--checkpoint", home / "hub", "--image", home / "image" / "rgb.png", "--out", file,
            "--max-new-tokens", "2", "--only", "[ps]*block.?/mid_BTD")  # fmt: skip
    arrays = read_arrays(folder / "port.safetensors")
    named = {f"mid.{name.split('/')[2][-1]}@{name.split('/')[0]}": array[0] for name, array in arrays.items()}
    np.savez(folder / "port.npz", token_ids=np.array([7, 8]), **named)
    (folder / "arrays").mkdir()
    for name, array in named.items():
        np.save(folder / "arrays" / name, array)
    (folder / "map.toml").write_text('extends = "gemma_cpp"\n' + RULE)
    logits = {"logits": np.ones((3, 716), np.float32), "token_ids": np.array([7, 8, 1])}
    np.savez(home / "logits" / "logits.npz", **logits)
    np.savez_compressed(home / "ids" / "ids.npz", **logits)
    entries = [(name, safetensors_file.WORDS[array.dtype.name], array.shape) for name, array in logits.items()]
    safetensors_file.write(home / "logits" / "logits.safetensors", entries, logits.values())
    (home / "ids" / "ids.txt").write_text("7\n8\n1\n")
    shutil.copytree(home / "hub", home / "logits" / SOUND, dirs_exist_ok=True)


def _json(path, document):
    path.write_text(json.dumps(document))


def run(command, *arguments):
    """Run a command in this process, exceptions let through."""
    options = parser_of(command).parse_args(list(map(str, arguments)))
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out), np.errstate(all="ignore"):
        command.run(options)


def _answer(folder, file, *more):
    arguments = "--image", IMAGE, "--prompt", "segment a <word>", "--max-new-tokens", "1", "--checkpoint"
    run(generate, *more, *arguments, folder)


def _npz(folder, file):
    files = "--config", folder / "config.json", "--tokenizer", folder / "tokenizer.json"
    _answer(folder / "model.npz", file, *files)


def _described(folder, file):
    run(inspect, "--tensors", "--checkpoint", folder)
    npgemma.load(folder, dtype="int8")


def _words(folder, file):
    """Both ways through the damaged file; in the folder, `tokenizer.model` goes before `tokenizer.json`."""
    tokenizer = open_tokenizer(file if file.name == "tokenizer.json" else folder, 720)
    tokenizer.decode_complete(tokenizer.prompt("<more> a small  café \u2581 <loc0001> 日本 <word>"))
    tokenizer.decode(range(720))


def _compared(folder, file):
    port = folder / "arrays" if file.parent.name == "arrays" else folder / "port.npz"
    port = file if file.name == "port.safetensors" else port
    names = [] if port.suffix == ".safetensors" else ["--map", folder / "map.toml"]
    run(compare, port, *names, "--reference", folder / "reference.safetensors")


# For each folder of files, what is read of it, given the folder and the damaged file.
READERS = {
    "hub": _answer,
    "shards": _described,
    "npz": _npz,
    "adapter": _answer,
    "codebook": lambda folder, file: codebook.read_codebook(file),
    "words": _words,
    "image": lambda folder, file: load_image(file, 8),
    "port": _compared,
    "logits": lambda folder, file: read_answer(str(file), npgemma.load(folder / SOUND)),
    "ids": lambda folder, file: given_tokens.read_ids(str(file)),
}
IMAGE = ROOT / "tiny" / "gallery" / "dark.png"
