"""Small models and inputs for the parity tests: all axis sizes distinct, nothing that is one or zero."""

import contextlib
import dataclasses
import io
import pathlib
import shlex
import struct
import subprocess
import sys
import zlib

import numpy as np
import torch
from PIL import Image

import cli
import conversion
import npgemma
from conversion import safetensors_file
from conversion.vocabulary import write_tokenizer
from npgemma.config import FULL, SLIDING, Config, Gemma2Config, TextConfig, VisionConfig
from npgemma.machinery.backend import numpy_backend, to_numpy
from npgemma.porting.difference import difference
from torch_ref.backend import to_torch, torch_backend

ROOT = pathlib.Path(__file__).resolve().parent.parent

_VISION = VisionConfig(width=24, mlp_width=40, layers=2, heads=3, image_size=28, patch_size=7, epsilon=1e-6)
_TEXT = {"width": 30, "mlp_width": 56, "layers": 3, "vocabulary": 101, "context_length": 64}

# The ways in which heads can share keys and values.
GEMMA = {
    "one key/value head": Config(
        _VISION, TextConfig(query_heads=4, key_value_heads=1, head_width=10, **_TEXT), image_token=97
    ),
    "two key/value heads": Config(
        _VISION, TextConfig(query_heads=6, key_value_heads=2, head_width=10, **_TEXT), image_token=97
    ),
    "a key/value head each": Config(
        _VISION, TextConfig(query_heads=5, key_value_heads=5, head_width=14, **_TEXT), image_token=97
    ),
}
# All that Gemma 2 adds matters here: caps that bite, a window shorter than the text, a scale of its own.
GEMMA_2 = Config(
    _VISION,
    Gemma2Config(
        query_heads=6, key_value_heads=2, head_width=14, **_TEXT, query_pre_attn_scalar=9, attention_softcap=1.5,
        final_softcap=2.0, sliding_window=3, layer_types=(SLIDING, FULL, SLIDING),
    ),
    image_token=97,
    eos_tokens=(1, 3),
)  # fmt: skip
CONFIGS = GEMMA | {"Gemma 2": GEMMA_2}
BATCH, TOKENS = 2, 11


def random(shape, seed, dtype="float64", scale=1.0):
    """Random values, drawn in float64 so that both dtypes test the same numbers."""
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def models(config, dtype="float32", seed=0, device="cpu"):
    """The same random weights in both backends, as models without a tokenizer."""
    params = conversion.random_params(config, seed, dtype)
    return on_numpy(params, config, dtype), on_torch(to_torch(params, dtype, device), config, dtype, device)


def on_numpy(params, config, dtype="float32", folder=""):
    """Weights on the NumPy backend."""
    return npgemma.Model(params, config, numpy_backend(dtype), folder)


def on_torch(params, config, dtype="float32", device="cpu", static=False, folder=""):
    """Tensors on the torch backend."""
    return npgemma.Model(params, config, torch_backend(dtype, device, static), folder)


def inputs(config, dtype="float32", batch=BATCH, seed=1):
    """Pixels, text ids, the length of the prefix, and who is padding: row 1 has three padded tokens after the first."""
    size = config.vision.image_size
    pixels = random((batch, size, size, 3), seed, dtype).clip(-1, 1)
    ids = np.random.default_rng(seed + 1).integers(4, config.image_token, (batch, TOKENS))
    valid = np.ones(ids.shape, dtype=bool)
    valid[1:, :3] = False
    return pixels, ids, TOKENS - 4, valid


def write_random_folder(folder, config):
    """A checkpoint of random weights in the hub's layout with a tokenizer."""
    sentences = ["a small red circle and a large blue square", "answer en how many objects", "caption en"] * 5
    pieces = write_tokenizer(folder / "tokenizer.model", sentences)
    text = dataclasses.replace(config.text, vocabulary=pieces + 13, context_length=96)
    config = dataclasses.replace(config, text=text, image_token=pieces)
    conversion.save(folder, conversion.random_params(config, 0), config)
    return folder


def tensor(x):
    return torch.from_numpy(np.ascontiguousarray(x))


def assert_close(expected, found, bound, what=""):
    """Compare by relative L2, norm ratio and largest entry; dtypes must agree too."""
    expected, found = to_numpy(expected), to_numpy(found)
    assert expected.dtype == found.dtype, f"{what}: {expected.dtype} became {found.dtype}"
    apart = difference(expected, found)
    assert apart.relative_l2 <= bound, f"{what}: relative L2 {apart.relative_l2:.2e} is over {bound:.2e} ({apart})"


def start(*arguments, **settings):
    """The same as a process of its own."""
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **(pipes | settings))


def rewrite(folder, change):
    """Write a folder's tensors again, as ``change(name, dtype, array)`` lists them."""
    path = folder / "model.safetensors"
    tensors = [(t.name, t.dtype, np.array(t.array)) for t in safetensors_file.read(path)]
    tensors = [new for old in tensors for new in change(*old)]
    safetensors_file.write(path, [(n, d, a.shape) for n, d, a in tensors], [a for _, _, a in tensors])


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path):
    """A PNG of a few bytes that claims 40000 x 40000 pixels."""
    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b""))


def bad_files(folder):
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)).save(good, "PNG")
    good = good.getvalue()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    (folder / "truncated.png").write_bytes(good[: len(good) // 2])
    (folder / "damaged.png").write_bytes(good[:60] + b"\xff" * 40 + good[100:])
    bomb(folder / "bomb.png")
    (folder / "folder.png").mkdir()
    return {
        "empty.png": "is empty", "text.png": "not an image", "truncated.png": "decoded", "damaged.png": "decoded",
        "bomb.png": "more than 120,000,000 pixels", "folder.png": "folder", "missing.png": "no image",
    }  # fmt: skip


def run_line(line, folder):
    """Run a line of a shell in a folder; the project's own command in this process, which has loaded the libraries.

    Parameters
    ----------
    line : str
        As the documents print it.
    folder : pathlib.Path

    Returns
    -------
    subprocess.CompletedProcess
    """
    if line.startswith("python cli.py"):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(shlex.split(line)[2:])
        said = []
        for stream in (out, err):
            stream.flush()
            said.append(stream.buffer.getvalue().decode())
        return subprocess.CompletedProcess(line, status, *said)
    words = line.replace("python ", f"{sys.executable} ", 1) if line.startswith("python ") else line
    return subprocess.run(words, shell=True, capture_output=True, text=True, cwd=folder)
