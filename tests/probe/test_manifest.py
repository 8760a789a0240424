"""manifest.py: both backends tell the same of every array; what it says of an array makes that array."""

import functools
import json

import numpy as np
import pytest
from support import CONFIGS, inputs, models

import npgemma
from npgemma.params import leaves
from npgemma.porting.bounds import budget_of
from npgemma.probe.manifest import Manifest, checkpoint_hash


@functools.cache
def traced(family, backend):
    model = models(CONFIGS[family], "float64")[backend]
    manifest = Manifest(model.params)
    with npgemma.record(watch=manifest.watch) as trace:
        model.logits(*inputs(CONFIGS[family], "float64"))
    return trace, manifest.entries


FAMILIES = ["two key/value heads", "Gemma 2"]


@pytest.mark.parametrize("family", FAMILIES)
def test_both_backends_tell_the_same(family):
    (_, ours), (_, theirs) = traced(family, 0), traced(family, 1)
    assert list(ours) == list(theirs)
    for name, entry in ours.items():
        other = theirs[name]
        for key in ("axes", "shape", "inputs", "weights", "same_as", "gauge"):
            assert getattr(entry, key) == getattr(other, key), (name, key)


@pytest.mark.parametrize("backend", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_array_stands_behind_what_it_was_made_from(family, backend):
    trace, entries = traced(family, backend)
    assert list(trace) == list(entries)
    seen = set()
    for name, entry in entries.items():
        assert set(entry.inputs) <= seen, name
        seen.add(name)
        assert entry.op != "opaque", name
        if entry.same_as:
            assert np.array_equal(trace[name], trace[entry.same_as])
            assert entries[entry.same_as].same_as is None
    # All comes from the pixels, the ids and what is valid; nothing else is an input.
    given = {name.rpartition("/")[2] for name, entry in entries.items() if entry.op == "input"}
    assert given == {"pixels_BYXC", "ids_BT", "prefix_BT", "valid_BT"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_named_where_it_is_used(family):
    _, entries = traced(family, 0)
    used = {weight for entry in entries.values() for weight in entry.weights}
    params = models(CONFIGS[family], "float64")[0].params
    assert used == {name for name, _, _ in leaves(params)}
    gate = entries["logits.0/run_blocks.0/block.1/geglu.0/gate_BTF"]
    assert gate.weights == ("text.blocks.1.mlp.gate",)
    assert gate.ops == ("einsum", "gelu")


def test_the_arrays_named_really_make_the_array():
    trace, entries = traced("two key/value heads", 0)
    weights = {name: leaf for name, _, leaf in leaves(models(CONFIGS["two key/value heads"], "float64")[0].params)}
    checked = 0
    for name, entry in entries.items():
        if entry.ops == ("einsum",) and entry.weights:
            formula = entry.formula.split("'")[1]
            [source], [weight] = entry.inputs, entry.weights
            assert np.allclose(np.einsum(formula, trace[source], weights[weight]), trace[name], rtol=1e-12), name
            checked += 1
        elif entry.ops == ("add",) and not entry.weights:
            assert np.array_equal(sum(trace[source] for source in entry.inputs), trace[name]), name
            checked += 1
    assert checked > 20


def test_the_source_line_is_the_formula():
    _, entries = traced("two key/value heads", 0)
    entry = entries["logits.0/run_blocks.0/block.0/mid_BTD"]
    file, _, line = entry.file.partition(":")
    root = npgemma.embedded_checkpoint().parent
    assert (root / file).read_text().splitlines()[int(line) - 1].strip() == entry.formula


def test_an_array_that_takes_the_memory_of_another_is_not_taken_for_it():
    manifest = Manifest(models(CONFIGS["two key/value heads"])[0].params)
    array = np.ones((2, 3))
    manifest.known[id(array)] = (lambda: None), "a/dead_BT"
    assert manifest.name_of(array) is None


def test_the_hash_tells_weights_apart():
    config = CONFIGS["two key/value heads"]
    ours, theirs = models(config, "float32")
    assert checkpoint_hash(ours.params) == checkpoint_hash(theirs.params)
    assert checkpoint_hash(ours.params) != checkpoint_hash(models(config, "float32", seed=1)[0].params)


def test_json_has_what_a_reader_needs(tmp_path):
    trace, entries = traced("Gemma 2", 0)
    manifest = Manifest(models(CONFIGS["Gemma 2"], "float64")[0].params)
    manifest.entries = entries
    told = json.loads(manifest.as_json(dict.fromkeys(trace, "F64"), budget_of, checkpoint="sha256:0"))
    assert told["format"] == 1
    first, second = told["arrays"][:2]
    assert second["offset"] == first["offset"] + trace[first["name"]].nbytes
    assert set(first) >= {"name", "axes", "shape", "dtype", "offset", "op", "from", "weights", "file", "formula"}
