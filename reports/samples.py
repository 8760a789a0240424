"""Small valid files of every kind that npgemma reads, and how each is read; `mutants.py` damages them."""

import contextlib
import functools
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
from npgemma.command import compare, inspect, trace  # noqa: E402
from npgemma.command.arguments import parser_of  # noqa: E402
from npgemma.config import FULL, SLIDING, Config, Gemma2Config, TextConfig, VisionConfig  # noqa: E402
from npgemma.image import load_image  # noqa: E402
from npgemma.params import leaves  # noqa: E402
from npgemma.porting import given_tokens, logits, read_arrays  # noqa: E402
from npgemma.tokenizer import open_tokenizer  # noqa: E402

SOUND = "sound"  # the folder of files that are not damaged
WORDS = ROOT / "tests" / "golden" / "tokenizers"
# A mode and a format, and how a format is saved.
IMAGES = (
    "RGB.png P.png I;16.png 1.png LA.png RGB.jpg CMYK.jpg RGB.mpo RGB.webp RGBA.webp P.gif RGB.bmp P.bmp RGB.tiff "
    "F.tiff 1.tiff RGB.ppm I;16.pgm RGBA.avif"
).split()
SAVED = {"P.png": {"transparency": 3}, "RGB.jpg": {"progressive": True}, "RGB.tiff": {"compression": "jpeg"}}
SAVED |= {"F.tiff": {"compression": "tiff_lzw"}, "1.tiff": {"compression": "group4"}}
SAVED |= dict.fromkeys(("RGB.mpo", "RGBA.webp", "P.gif"), {"save_all": True})
VISION = VisionConfig(width=6, mlp_width=5, layers=1, heads=2, image_size=8, patch_size=4)
TEXT = {"width": 8, "mlp_width": 7, "query_heads": 2, "key_value_heads": 1, "head_width": 4, "vocabulary": 716}
TEXT |= {"layers": 2, "context_length": 64}
ADDED = {"content": "<word>", "id": 714, "lstrip": True, "single_word": True, "normalized": False}
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "rank_pattern": {"k_proj": 1}, "modules_to_save": ["linear"]}
LORA |= {"alpha_pattern": {r"layers\.\d+\.self_attn\.q_proj": 4}, "base_model_name_or_path": SOUND}
ATTENTION = "language_model.model.layers.0.self_attn."
ADAPTED = {"q_proj.lora_A": (2, 8), "q_proj.lora_B": (8, 2), "k_proj.lora_A": (1, 8), "k_proj.lora_B": (4, 1)}
ADAPTED = {f"base_model.model.{ATTENTION}{name}.weight": shape for name, shape in ADAPTED.items()}
ADAPTED["base_model.model.multi_modal_projector.linear.modules_to_save.weight"] = 8, 6
RULE = '[["mid.{i}@{pass}"]]\nours = "{pass}/run_blocks.0/block.{i}/mid_BTD"\naxes = "TD"\nscale = 1.0\n'


def make(home):
    """Write the valid files, in a folder for each of `READERS`."""
    for name in READERS:
        (home / name / SOUND).mkdir(parents=True)
    one = Config(VISION, TextConfig(**TEXT), image_token=709)
    two = Config(VISION, Gemma2Config(**TEXT, layer_types=(SLIDING, FULL)), image_token=709)
    _checkpoint(home / "hub", one, "float32", 10**6, "tokenizer.model")
    _checkpoint(home / "shards", two, "bfloat16", 8000, "tokenizer.json")
    _checkpoint(home / "adapter" / SOUND, one, "float16", 10**6, "tokenizer.model")
    convert.convert(home / "shards", home / "npz" / "model.npz", "float32")
    shutil.copy(home / "shards" / "config.json", home / "npz")
    _safetensors(home / "adapter" / "adapter_model.safetensors", _ones(ADAPTED))
    _json(home / "adapter" / "adapter_config.json", LORA)
    np.savez_compressed(home / "codebook" / codebook.FILE, **_ones(codebook.layout(8, 8)))
    for name, folder in (("tokenizer.model", "words"), ("tokenizer.json", "words"), ("tokenizer.json", "npz")):
        shutil.copy(WORDS / "bpe" / name, home / folder)
    for folder in ("hub", "words"):
        _json(home / folder / "added_tokens.json", {"<more>": 713})
        _json(home / folder / "tokenizer_config.json", {"added_tokens_decoder": {"714": ADDED, "2": {"content": "<bos>"}}})
    _images(home / "image")
    _ports(home, home / "port")


def _ones(shapes):
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def _json(path, document):
    path.write_text(json.dumps(document))


def _safetensors(path, arrays):
    entries = [(name, safetensors_file.WORDS[array.dtype.name], array.shape) for name, array in arrays.items()]
    safetensors_file.write(path, entries, arrays.values())


def _checkpoint(folder, config, dtype, shard_bytes, tokenizer):
    tree = {name: array for name, _, array in leaves(conversion.random_params(config, 0))}
    write.write_folder(folder, config, lambda leaf: leaf.store(tree[leaf.name]), dtype, shard_bytes)
    shutil.copy(WORDS / "unigram" / tokenizer, folder)
    _json(folder / "generation_config.json", {"eos_token_id": [1, 107]})


def _images(folder):
    Y, X = np.mgrid[:14, :18]
    image, exif = Image.fromarray(np.stack([X * 13, Y * 17, X * Y], -1).astype(np.uint8)), Image.Exif()
    exif[0x0112] = 6  # rotated
    for name in IMAGES:
        mode = name.partition(".")[0]
        drawn = (image.convert("L") if mode in ("I;16", "F") else image).convert(mode)
        more = {"append_images": [drawn.rotate(90)]} if "save_all" in SAVED.get(name, ()) else {"exif": exif}
        with contextlib.suppress(KeyError, OSError):  # a Pillow without AVIF
            drawn.save(folder / name, **SAVED.get(name, {}), **more)


def _ports(home, folder):
    """Write a trace, a port's arrays with its map, logits and ids."""
    file, question = folder / "port.safetensors", ("--image", home / "image" / "RGB.png", "--max-new-tokens", 2)
    run(trace, "--checkpoint", home / "hub", *question, "--only", "[ps]*block.?/mid_BTD", "--out", file)
    shutil.copy(file, folder / "reference.safetensors")
    named = {tuple(name.split("/")): array[0] for name, array in read_arrays(file).items()}
    named = {f"mid.{block[-1]}@{step}": array for (step, _, block, _), array in named.items()}
    np.savez(folder / "port.npz", token_ids=np.array([7, 8]), **named)
    (folder / "arrays").mkdir()
    for name, array in named.items():
        np.save(folder / "arrays" / name, array)
    (folder / "map.toml").write_text('extends = "gemma_cpp"\n' + RULE)
    answer = {"logits": np.ones((3, model().tokenizer.size), np.float32), "token_ids": np.array([7, 8, 1])}
    for name in ("logits", "ids"):
        np.savez(home / name / "answer.npz", **answer)
        _safetensors(home / name / "answer.safetensors", answer)
    (home / "ids" / "ids.txt").write_text("7\n8\n1\n")


@functools.cache
def model():
    """Return the embedded checkpoint."""
    return npgemma.load()


def run(command, *arguments):
    """Run a command in this process, exceptions let through."""
    options = parser_of(command).parse_args(list(map(str, arguments)))
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        command.run(options)


def _answer(path, **settings):
    loaded = npgemma.load(path, **settings)
    with np.errstate(all="ignore"):  # as on the command line
        loaded.generate(ROOT / "tiny" / "gallery" / "dark.png", "segment a <word>", max_new_tokens=2)


def _npz(folder, file):
    _answer(folder / "model.npz", config=folder / "config.json", tokenizer=folder / "tokenizer.json", dtype="bfloat16")


def _words(folder, file):
    """Read one tokenizer.json alone; in the folder `tokenizer.model` goes before it."""
    tokenizer = open_tokenizer(file if file.name == "tokenizer.json" else folder, 720)
    tokenizer.decode_complete(tokenizer.prompt("<more> a small  café \u2581 <loc0001> 日本 <word>"))
    tokenizer.decode(range(720))


def _port(folder, file):
    ports = {"reference.safetensors": "port.npz", "map.toml": "port.npz"}
    port = file.parent if file.suffix == ".npy" else folder / ports.get(file.name, file.name)
    run(compare, port, "--map", folder / "map.toml", "--reference", folder / "reference.safetensors")


# For each folder: what reads it, given the folder and the damaged file in it.
READERS = {
    "hub": lambda folder, file: _answer(folder),
    "shards": lambda folder, file: (run(inspect, "--tensors", "--checkpoint", folder), _answer(folder, dtype="int8")),
    "npz": _npz,
    "adapter": lambda folder, file: _answer(folder),
    "codebook": lambda folder, file: codebook.read_codebook(file),
    "words": _words,
    "image": lambda folder, file: load_image(file, 8),
    "port": _port,
    "logits": lambda folder, file: logits.read_answer(str(file), model()),
    "ids": lambda folder, file: given_tokens.read_ids(str(file)),
}
