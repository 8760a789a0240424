"""The names that scripts rely on: they stay, and one that moves works for one release under its old name and warns."""

import importlib
import inspect
import subprocess
import sys

import pytest
from support import ROOT

# By module: what users import. The command line's options and JSON keys have tests of their own in tests/command.
PUBLIC = {
    "npgemma": "load record embedded_checkpoint example_image InputError Model Generation Sampling",
    "npgemma.answer": "find_objects Detection",
    "npgemma.attention": "attend",
    "npgemma.axes": "AXES suffix sizes",
    "npgemma.config": "Config PUBLISHED",
    "npgemma.contrastive": "sigmoid_loss softmax_loss",
    "npgemma.image": "load_image load_pixels LoadedImage Preprocessing",
    "npgemma.loss": "next_token_loss",
    "npgemma.ops": "einsum gelu layer_norm rms_norm softmax soft_cap convolve convolve_transposed relu",
    "npgemma.porting": "compare from_model from_trace read_arrays read_map Reference Rule",
    "npgemma.rope": "angles rotate",
    "npgemma.tokenizer": "Tokenizer open_tokenizer",
    "torch_ref": "load",
    "conversion": "read_folder read_checkpoint Source",
    "conversion.codebook": "read_codebook",
}
# Arguments in their order; a star stands before those that are given by name.
SIGNATURES = {
    "npgemma.Model.generate": "self image prompt watch settings",
    "npgemma.Model.generate_batch": "self images prompts watch settings",
    "npgemma.Model.logits": "self pixels ids prefix valid",
    "npgemma.Model.score": "self image prompt answers",
    "npgemma.porting.compare": "reference port rules dtype vocabulary grafts",
    "npgemma.porting.from_model": "model image prompt_ids token_ids most",
    "npgemma.image.load_pixels": "image size",
    "npgemma.record": "only sink watch",
    "npgemma.tokenizer.Tokenizer.prompt": "self text",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_the_names_are_there(module):
    missing = [name for name in PUBLIC[module].split() if not hasattr(importlib.import_module(module), name)]
    assert not missing


@pytest.mark.parametrize("path", SIGNATURES)
def test_their_arguments_stay(path):
    module, _, name = path.rpartition(".")
    owner = importlib.import_module("npgemma").Model if module == "npgemma.Model" else None
    if module.endswith("Tokenizer"):
        owner = importlib.import_module("npgemma.tokenizer").Tokenizer
    found = getattr(owner or importlib.import_module(module), name)
    assert list(inspect.signature(found).parameters) == SIGNATURES[path].split()


OLD = """
import importlib, warnings
from npgemma.machinery.renamed import MODULES

for old, new in MODULES.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.import_module(old)
    assert any(f"{old} is now {new};" in str(each.message) for each in caught), old
from npgemma.tools.port.reference import from_model
from npgemma.trace import record
import npgemma.porting
assert from_model is npgemma.porting.from_model and record is npgemma.record
print("all")
"""


def test_old_modules_work_and_warn():
    """In a process of its own, since a module is imported once."""
    found = subprocess.run([sys.executable, "-c", OLD], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout == "all\n", found.stderr


def test_an_old_name_works_and_warns():
    with pytest.warns(DeprecationWarning, match="Found is now npgemma.answer.Detection"):
        from npgemma.answer import Found
    from npgemma.answer import Detection

    assert Found is Detection
    for package in ("npgemma", "torch_ref"):
        new = importlib.import_module(f"{package}.loss").next_token_loss
        with pytest.warns(DeprecationWarning, match=f"next_token_loss is now {package}.loss.next_token_loss"):
            assert importlib.import_module(f"{package}.contrastive").next_token_loss is new
    with pytest.raises(AttributeError, match="nothing"):
        importlib.import_module("npgemma.answer").nothing  # noqa: B018
