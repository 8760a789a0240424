"""examples/paligemma.py is what the forward files make it, and answers with the same tokens without npgemma."""

import json
import subprocess
import sys

import pytest
from generated import one_file
from support import ROOT

import conversion
import npgemma
from conversion.write import write_folder
from npgemma.params import leaves

PROMPTS = "caption en", "detect red circle ; blue square", "answer en how many objects", "ocr"
PROGRAM = f"""
import json, runpy, sys
sys.modules |= dict.fromkeys(("npgemma", "conversion", "torch_ref", "torch", "safetensors"))
sys.argv = [*sys.argv[1:], {PROMPTS[0]!r}]
answer = runpy.run_path(sys.argv[0], run_name="__main__")["answer"]
print(json.dumps([answer(*sys.argv[1:3], prompt, 20) for prompt in {PROMPTS}]))
"""


@pytest.mark.parametrize("family", [0, 1, 2])
def test_the_same_tokens(family, tmp_path, random_folder, gemma_2_folder):
    """Of the embedded checkpoint; and of random weights in shards of bfloat16, as the hub has them."""
    folder, image = [npgemma.embedded_checkpoint(), random_folder, gemma_2_folder][family], npgemma.example_image()
    if family:
        (tmp_path / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
        params, config = conversion.read_folder(folder)
        arrays, folder = {name: array for name, _, array in leaves(params)}, tmp_path
        write_folder(folder, config, lambda leaf: leaf.store(arrays[leaf.name]), "bfloat16", shard_bytes=20_000)
    command = [sys.executable, "-c", PROGRAM, ROOT / one_file.FILE, folder, image]
    printed, found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rsplit("\n", 2)[:2]
    model = npgemma.load(folder)
    answers = [model.generate(image, prompt, max_new_tokens=20) for prompt in PROMPTS]
    assert json.loads(found) == [[answer.token_ids, answer.text] for answer in answers]
    assert printed == model.generate(image, PROMPTS[0]).text


def test_it_is_up_to_date_and_short():
    kept = (ROOT / one_file.FILE).read_text()
    assert one_file.page() == kept, "run: python reports/readme.py"
    assert len(kept.splitlines()) < 450
