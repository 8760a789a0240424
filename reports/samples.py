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
from conversion import codebook, convert, safetensors_file  # noqa: E402
from npgemma.command import compare, inspect, prepare, trace  # noqa: E402
from npgemma.command.arguments import parser_of  # noqa: E402
from npgemma.config import Config, TextConfig, VisionConfig  # noqa: E402
from npgemma.image import load_image  # noqa: E402
from npgemma.porting import given_tokens, logits, read_arrays  # noqa: E402
from npgemma.tokenizer import open_tokenizer  # noqa: E402

SOUND = "sound"  # the folder of files that are not damaged
IMAGE = ROOT / "tiny" / "gallery" / "dark.png"
GOLDEN = ROOT / "tests" / "golden"
COPIED = {"shards": "bfloat16_shards", "adapter": "lora/patterns", "adapter/sound": "hub", "words": "tokenizers/bpe"}
TEXT = {"width": 8, "mlp_width": 7, "query_heads": 2, "key_value_heads": 1, "head_width": 4, "vocabulary": 716}
HUB = Config(
    VisionConfig(width=6, mlp_width=5, layers=1, heads=2, image_size=8, patch_size=4),
    TextConfig(layers=2, context_length=64, **TEXT),
    image_token=709,
)
ADDED = {"content": "<word>", "id": 714, "lstrip": True, "single_word": True, "normalized": False}
JSON = {
    "added_tokens.json": {"<more>": 713},
    "tokenizer_config.json": {"added_tokens_decoder": {"714": ADDED, "2": {"content": "<bos>"}}},
}
# An image's mode and format, and what it is saved with.
IMAGES = {
    "RGB.png": {}, "P.png": {"transparency": 3}, "I;16.png": {}, "1.png": {}, "LA.png": {}, "RGB.bmp": {}, "P.bmp": {},
    "RGB.jpg": {"progressive": True}, "CMYK.jpg": {}, "RGB.mpo": {"save_all": True}, "P.gif": {"save_all": True},
    "RGB.webp": {}, "RGBA.webp": {"save_all": True}, "RGBA.avif": {}, "RGB.tiff": {"compression": "jpeg"},
    "F.tiff": {"compression": "tiff_lzw"}, "1.tiff": {"compression": "group4"}, "RGB.ppm": {}, "I;16.pgm": {},
}  # fmt: skip
MAP = """extends = "gemma_cpp"
[["mid.{i}@{pass}"]]
ours = "{pass}/run_blocks.0/block.{i}/mid_BTD"
axes = "TD"
scale = 1.0
take = { T = "last" }
"""


def make(home):
    """Write the valid files, in a folder for each of `READERS`."""
    for name in READERS:
        (home / name / SOUND).mkdir(parents=True)
    for name, folder in COPIED.items():
        ignore = shutil.ignore_patterns("expected.*")
        shutil.copytree(GOLDEN / folder, home / name, ignore=ignore, dirs_exist_ok=True)
    conversion.save(home / "hub", conversion.random_params(HUB, 0), HUB)
    shutil.copy(GOLDEN / "tokenizers" / "unigram" / "tokenizer.model", home / "hub")
    shutil.copy(GOLDEN / "tokenizers" / "unigram" / "tokenizer.json", home / "words" / "unigram.json")
    for folder in ("hub", "words"):
        for name, document in JSON.items():
            (home / folder / name).write_text(json.dumps(document))
    (home / "hub" / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 107]}))
    convert.convert(GOLDEN / "gemma2_hub", home / "npz" / "model.npz")
    shutil.copy(GOLDEN / "gemma2_hub" / "config.json", home / "npz")
    arrays = {name: np.ones(shape, np.float32) for name, shape in codebook.layout(8, 8).items()}
    np.savez_compressed(home / "codebook" / codebook.FILE, **arrays)
    _images(home / "image")
    _port(home, home / "port")
    arrays = {"logits": np.ones((3, model().tokenizer.size), np.float32), "token_ids": np.array([7, 8, 1])}
    entries = [(name, safetensors_file.WORDS[array.dtype.name], array.shape) for name, array in arrays.items()]
    for folder in ("logits", "ids"):
        np.savez(home / folder / "answer.npz", **arrays)
        safetensors_file.write(home / folder / "answer.safetensors", entries, arrays.values())
    (home / "ids" / "ids.txt").write_text("7\n8\n1\n")


def _images(folder):
    Y, X = np.mgrid[:14, :18]
    image, exif = Image.fromarray(np.stack([X * 13, Y * 17, X * Y], -1).astype(np.uint8)), Image.Exif()
    exif[0x0112] = 6  # rotated
    for name, options in IMAGES.items():
        mode = name.partition(".")[0]
        drawn = (image.convert("L") if mode in ("I;16", "F") else image).convert(mode)
        more = {"append_images": [drawn.rotate(90)]} if "save_all" in options else {"exif": exif}
        with contextlib.suppress(KeyError, OSError):  # a Pillow without AVIF
            drawn.save(folder / name, **options, **more)


def _port(home, folder):
    """Write a trace, and the arrays of a port with their map."""
    file = folder / "port.safetensors"
    with contextlib.chdir(home):  # the trace holds the image's path
        question = "--checkpoint", "hub", "--image", "image/RGB.png", "--max-new-tokens", 2
        run(trace, *question, "--only", "[ps]*block.?/mid_BTD", "--out", file)
    shutil.copy(file, folder / "reference.safetensors")
    named = {tuple(name.split("/")): array[0] for name, array in read_arrays(file).items()}
    named = {f"mid.{block[-1]}@{step}": array for (step, _, block, _), array in named.items()}
    np.savez(folder / "port.npz", token_ids=np.array([7, 8]), **named)
    (folder / "arrays").mkdir()
    for name, array in named.items():
        np.save(folder / "arrays" / name, array)
    (folder / "map.toml").write_text(MAP)
    shutil.copytree(home / "hub", home / "model" / SOUND, dirs_exist_ok=True)
    for name in ("port.npz", "map.toml"):
        shutil.copy(folder / name, home / "model")


@functools.cache
def model():
    """Return the embedded checkpoint."""
    return npgemma.load()


def run(command, *arguments):
    """Run a command in this process, exceptions let through."""
    options = parser_of(command).parse_args(list(map(str, arguments)))
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        command.run(options)


def _answer(folder, file):
    npgemma.load(folder).generate(IMAGE, "segment a <word>", max_new_tokens=2)


def _described(folder, file):
    run(inspect, "--tensors", "--checkpoint", folder)
    npgemma.load(folder, dtype="int8")


def _words(folder, file):
    # Alone where it is one; in the folder, tokenizer.model goes before tokenizer.json.
    tokenizer = open_tokenizer(file if file.name in ("tokenizer.json", "unigram.json") else folder, 720)
    tokenizer.decode_complete(tokenizer.prompt("<more> a small  café \u2581 <loc0001> 日本 <word>"))
    tokenizer.decode(range(720))


def _image(folder, file):
    with prepare._quiet_libraries():  # libtiff
        load_image(file, 8)


def _compare(folder, file):
    ports = {"reference.safetensors": "port.npz", "map.toml": "port.npz"}
    port = file.parent if file.suffix == ".npy" else folder / ports.get(file.name, file.name)
    run(compare, port, "--map", folder / "map.toml", "--reference", folder / "reference.safetensors")


def _recalculate(folder, file):
    run(compare, folder / "port.npz", "--map", folder / "map.toml", "--checkpoint", folder / SOUND, "--image", IMAGE)


# For each folder: what reads it, given the folder and the damaged file in it. Of those in `SLOW` there are fewer.
SLOW = "model"
READERS = {
    "hub": _answer,
    "shards": _described,
    "npz": lambda folder, file: npgemma.load(folder / "model.npz", config=folder / "config.json", dtype="bfloat16"),
    "adapter": lambda folder, file: npgemma.load(folder, base=folder / SOUND),
    "codebook": lambda folder, file: codebook.read_codebook(file),
    "words": _words,
    "image": _image,
    "port": _compare,
    "model": _recalculate,
    "logits": lambda folder, file: logits.read_answer(str(file), model()),
    "ids": lambda folder, file: given_tokens.read_ids(str(file)),
}
