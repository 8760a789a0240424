"""The published size, on random weights in the hub's layout: ``pytest -m slow --report reports/full_size.json``.

Takes about five minutes, 6 GB of disk and 18 GB of memory.
"""

import json
import os
import platform
import subprocess
import sys
import time

import numpy as np
import pytest
from test_cli import ROOT, start

import npgemma

CONFIG = "paligemma-3b-224"
MOST_MEMORY = 20e9
TOKENS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full_size")
    subprocess.run([sys.executable, "-m", "conversion", "synthesize", CONFIG, folder], check=True, cwd=ROOT)
    return folder


def limits():
    """What this machine can do, measured now: the best of ten."""
    large = np.ones(2**28, np.float32)  # 1 GB, far more than any cache
    rows, columns = np.ones((2048, 2048), np.float32), np.ones((2048, 16384), np.float32)

    def rate(amount, work):
        work()
        seconds = []
        for _ in range(10):
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
        return amount / min(seconds)

    # A matrix-vector product reads its matrix once: reading as the model reads.
    reading = rate(large.nbytes, lambda: large.reshape(16384, -1) @ large[:16384])
    product = rate(2 * 2048 * 2048 * 16384, lambda: rows @ columns)
    return {"read_bytes_per_second": reading, "product_operations_per_second": product}


def work(config):
    """What a run must do at least, in float32: multiplications and additions, and bytes of weights read."""
    vision, text = config.vision, config.text
    T = config.image_tokens
    S = T + 4  # <bos> caption en newline, about
    block = 4 * vision.width**2 + 2 * vision.width * vision.mlp_width
    attention = 2 * T * vision.width
    vision_operations = 2 * T * (vision.layers * (block + attention) + 3 * vision.patch_size**2 * vision.width)
    heads = 2 * (text.query_heads + text.key_value_heads) * text.head_width
    weights = text.layers * text.width * (heads + 3 * text.mlp_width)
    head = text.vocabulary * text.width
    mixing = text.layers * 2 * S * text.query_heads * text.head_width
    prefill_operations = 2 * S * (weights + mixing) + 2 * head
    return {
        "vision_operations": vision_operations,
        "prefill_operations": prefill_operations,
        "step_bytes": 4 * (weights + head),
    }


def run(backend, folder):
    """Run the command line as a process; return its answer and its peak memory in bytes."""
    arguments = ["--backend", backend, "--checkpoint", folder, "--max-tokens", TOKENS, "--json"]
    process = start(*arguments, "--image", npgemma.example_picture())
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, err
    return json.loads(out) | {"peak_bytes": usage.ru_maxrss * 1024}


@pytest.mark.slow
def test_both_backends_run_the_published_size(folder, request):
    import torch

    # Not counted: the first process to use so much memory waits for the disk, and on a virtual machine for its host.
    run("numpy", folder)
    runs = {backend: run(backend, folder) for backend in ("numpy", "torch")}
    measured = limits()
    assert runs["numpy"]["token_ids"] == runs["torch"]["token_ids"]
    assert len(set(runs["numpy"]["token_ids"])) > 1
    assert all(answer["peak_bytes"] < MOST_MEMORY for answer in runs.values())
    path = request.config.getoption("--report")
    if path:
        config = npgemma.config.PUBLISHED[CONFIG]
        report = {
            "checkpoint": f"{CONFIG}, random weights, bfloat16 file, run in float32",
            "date": time.strftime("%Y-%m-%d"),
            "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
            "limits": measured,
            "work": work(config),
            "runs": {b: {k: a[k] for k in ("timings", "token_ids", "peak_bytes")} for b, a in runs.items()},
        }
        with open(path, "w") as file:
            file.write(json.dumps(report, indent=2) + "\n")


@pytest.mark.slow
def test_parity_at_the_published_size(folder):
    """Every named array of the two backends within the bound, at 27 and 18 layers."""
    arguments = ["parity", "--checkpoint", folder, "--max-tokens", "2"]
    process = start(*arguments, "--image", npgemma.example_picture())
    out, err = process.communicate()
    assert process.returncode == 0, out[-2000:] + err
