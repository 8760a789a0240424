"""The published size, on random weights in the hub's layout: ``pytest -m full_size``.

Takes about five minutes, 6 GB of disk and 18 GB of memory.
"""

import json
import os
import subprocess
import sys

import pytest
from support import ROOT, start

import npgemma

pytestmark = pytest.mark.full_size
CONFIG = "paligemma-3b-224"
MOST_MEMORY = 20e9
TOKENS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full_size")
    subprocess.run([sys.executable, "-m", "conversion", "synthesize", CONFIG, folder], check=True, cwd=ROOT)
    return folder


def run(backend, folder):
    """Run the command line as a process; return its answer and its peak memory in bytes."""
    arguments = ["--backend", backend, "--checkpoint", folder, "--max-tokens", TOKENS, "--json"]
    process = start(*arguments, "--image", npgemma.example_image())
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, err
    return json.loads(out) | {"peak_bytes": usage.ru_maxrss * 1024}


def test_both_backends_run_the_published_size(folder):
    runs = {backend: run(backend, folder) for backend in ("numpy", "torch")}
    assert runs["numpy"]["token_ids"] == runs["torch"]["token_ids"]
    assert len(set(runs["numpy"]["token_ids"])) > 1
    assert all(answer["peak_bytes"] < MOST_MEMORY for answer in runs.values())


def test_parity_at_the_published_size(folder):
    """Every named array of the two backends within the bound, at 27 and 18 layers."""
    arguments = ["parity", "--checkpoint", folder, "--max-tokens", "2"]
    process = start(*arguments, "--image", npgemma.example_image())
    out, err = process.communicate()
    assert process.returncode == 0, out[-2000:] + err
