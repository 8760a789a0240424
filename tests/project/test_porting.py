"""docs/porting.md's first part: every command runs as it is printed, and the examples read and write what they say."""

import fnmatch
import importlib.util
import json
import re
import shutil

import numpy as np
import pytest
from generated import ROOT
from generated.porting import walk
from support import run_line as run

import npgemma
from npgemma.porting.arrays import read_arrays, read_manifest

COMPILER = shutil.which("cc")


def needs(line):
    """What a command needs that may not be there."""
    if ("cc " in line or "arrays" in line) and COMPILER is None:
        return "needs a C compiler"
    if "hf.safetensors" in line and importlib.util.find_spec("transformers") is None:
        return "needs transformers: pip install 'npgemma[oracle]'"
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the project's files are where the document says."""
    folder = tmp_path_factory.mktemp("walk")
    for name in ("cli.py", "examples", "tiny"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def test_the_walk_runs_as_printed(folder):
    statuses = {line.partition("  #")[0]: 1 for line in (ROOT / "docs/porting.md").read_text().splitlines()
                if "exits with 1" in line}  # fmt: skip
    outputs, done = [], 0
    for line in walk():
        if needs(line):
            continue
        result = run(line, folder)
        assert result.returncode == statuses.get(line, 0), (line, result.stdout, result.stderr)
        outputs.append(result.stdout)
        done += 1
    assert done >= 3
    said = "\n".join(outputs)
    assert "first wrong operation: prefill.0/run_blocks.0/block.0/geglu.0/gate_BTF" in said
    if COMPILER:
        assert (
            "first wrong operation: encode_image.0/encode.0/embed_patches.0/embedded_BTD\n  the port's patch_embed"
            in said
        )


def test_what_the_commands_write_is_ignored_by_git():
    text = "".join((ROOT / document).read_text() for document in ("README.md", "docs/porting.md"))
    written = set(re.findall(r"(?:--out|--annotate|--mask-dir|--show-attention|-o|mkdir -p) ([a-z][\w./]+)", text))
    patterns = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/")]
    assert written >= {"port.safetensors", "inputs", "arrays", "boxes.png"}
    assert [name for name in written if not any(fnmatch.fnmatch(f"/{name}", pattern) for pattern in patterns)] == []


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_the_port_in_c_is_right_without_the_mistake(folder, tmp_path):
    run("python cli.py trace --max-new-tokens 1 --out reference.safetensors", folder)
    for line in (
        f"cc -Wall -Werror -O2 -o {tmp_path}/port examples/port.c -lm",
        f"{tmp_path}/port tiny/model.safetensors reference.safetensors {tmp_path}",
        f"python cli.py compare {tmp_path} --map examples/port.toml --reference reference.safetensors --json",
    ):
        result = run(line, folder)
        assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["passed"]
    assert report["coverage"]["compared"] == 2


@pytest.mark.parametrize(("change", "first"), [("1 + gain", None), ("gain", "run_blocks.0/block.0/normed_BTD")])
def test_the_skeleton_of_a_port_is_right_and_shows_where_it_is_broken(folder, tmp_path, change, first):
    shutil.copy(ROOT / "examples/read_trace.py", tmp_path)
    text = (ROOT / "examples/skeleton_port.py").read_text().replace("1 + gain", change)
    (tmp_path / "skeleton_port.py").write_text(text)
    for line in text.splitlines()[2:5]:
        line = line.strip().replace("examples/skeleton_port.py", f"{tmp_path}/skeleton_port.py")
        said = run(f"{line} --json", folder).stdout
    report = json.loads(said)
    assert report["first"] == first or report["first"]["name"] == f"prefill.0/{first}"
    assert (report["coverage"]["unknown"], report["coverage"]["idle_rules"]) == (0, 0)


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_the_reader_in_c_reads_the_manifest(folder, tmp_path):
    run("python cli.py trace --max-new-tokens 1 --out reference.safetensors", folder)
    (tmp_path / "read.c").write_text(
        """#include "trace.h"
        int main(int count, char **words) {
            trace_file trace = trace_open(words[1]);
            trace_array logits = trace_get(&trace, "prefill.0/logit_BV");
            printf("%.9g\\n%s", logits.values[logits.size - 1], trace_metadata(&trace, "manifest"));
            return count - 2;
        }"""
    )
    assert run(f"cc -I examples -o {tmp_path}/read {tmp_path}/read.c", folder).returncode == 0
    last, _, manifest = run(f"{tmp_path}/read reference.safetensors", folder).stdout.partition("\n")
    trace = folder / "reference.safetensors"
    assert np.float32(last) == read_arrays(trace)["prefill.0/logit_BV"][0, -1]
    assert json.loads(manifest) == read_manifest(trace)
    broken = run(f"{tmp_path}/read cli.py", folder)
    assert (broken.returncode, broken.stderr) == (2, "error: this is no safetensors file: 'cli.py'\n")


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reader_in_python_reads_the_manifest(folder):
    run("python cli.py trace --max-new-tokens 1 --out reference.safetensors", folder)
    arrays, manifest = example("read_trace").read(folder / "reference.safetensors")
    expected = read_arrays(folder / "reference.safetensors")
    assert list(arrays) == list(expected) == [entry["name"] for entry in manifest["arrays"]]
    assert all(np.array_equal(arrays[name], expected[name]) for name in arrays)


def test_hugging_face_s_logits_alone():
    pytest.importorskip("transformers", reason="needs transformers: pip install 'npgemma[oracle]'")
    folder, image = npgemma.embedded_checkpoint(), npgemma.example_image()
    found = example("logits_transformers").logits(folder, image, "ocr", tokens=3)
    answer = npgemma.load().generate(image, "ocr", max_new_tokens=3)
    assert found["token_ids"].tolist() == answer.token_ids
    assert found["logits"].argmax(-1).tolist() == answer.token_ids
