"""axes.py: names, and every name in use against the array it names."""

import ast
import pathlib

import pytest
from support import CONFIGS, inputs, models

from npgemma import axes, record
from npgemma.axes import AXES, sizes, suffix

TOWERS = {"encode_image.0/encode.0": "vision", "project.0": "projector", "run_blocks.0": "text", "unembed.0": "text"}


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("q_BTNH", "BTNH"),
        ("angle_BTh", "BTh"),
        ("both_prefix_BTS", "BTS"),
        ("patch_BTCyx", "BTCyx"),
        ("token_ids", None),
        ("x", None),
        ("_BT", None),
        ("max_new_tokens", None),
        ("loss_", None),
    ],
)
def test_suffix(name, letters):
    assert suffix(name) == letters


def test_letters_are_single_and_explained():
    assert all(len(letter) == 1 and meaning for letter, meaning in AXES.items())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_name_fits_its_array(name):
    """Letters against shapes: within a function (by record itself), and against the configuration."""
    config = CONFIGS[name]
    model, _ = models(config)
    pixels, ids, prefix, valid = inputs(config)
    with record() as trace:
        model.logits(pixels, ids, prefix, valid)
    assert len(trace) > 200
    fixed = sizes(config)
    for path, array in trace.items():
        tower = next((tower for place, tower in TOWERS.items() if place in path), None)
        for letter, size in zip(suffix(path.rpartition("/")[2]), array.shape):
            # attend serves both towers and rotate serves keys too: there N is the number of heads it was given.
            if tower and not (letter == "N" and "rotate" in path):
                assert fixed[tower].get(letter, size) == size, f"{path} has shape {array.shape}"


def test_names_of_both_backends_are_axes():
    """Whatever looks like a suffix must be one: a typing error would silently not be recorded."""
    root = pathlib.Path(axes.__file__).parent.parent
    for path in [*root.glob("npgemma/*.py"), *root.glob("npgemma/backward/*.py"), *root.glob("torch_ref/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.id if isinstance(node, ast.Name) else ""
            if not name.isupper() and name.strip("_") == name and "_" in name and name.rpartition("_")[2][:1].isupper():
                assert suffix(name), f"{path}: {name}"
