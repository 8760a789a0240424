"""compare and diagnose: a port that read another prompt, or has other rows of the vocabulary."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import npgemma
from npgemma.command import main
from npgemma.image import load_image
from npgemma.porting import Rule, compare, from_model

IDS, RULES = "prefill.0/ids_BT", [Rule("input_ids", "{pass}/ids_BT", "BT", take={"T": "last"})]
MAP = '[["input_ids"]]\nours = "{pass}/ids_BT"\naxes = "BT"\ntake = { T = "last" }\n'


def traced(change=lambda ids: ids):
    model = npgemma.load()
    image = load_image(npgemma.example_image(), model.config.vision.image_size)
    return from_model(model, image, change(model.tokenizer.prompt("detect red circle ; blue square")), [511, 1104])


# Twice <bos>, without newline, and both, which leaves as many tokens.
CHANGES = [lambda ids: [2, *ids], lambda ids: ids[:-1], lambda ids: [2, *ids[:-1]]]


def port(change):
    """A right port but for its prompt, with image tokens in front of the text's, which a map cuts to our length."""
    reference = traced(change)
    arrays = {name: array.copy() for name, array in reference.arrays.items() if not name.endswith("ids_BT")}
    image = [reference.model.config.image_token] * reference.model.config.image_tokens
    return arrays | {"input_ids": np.array([image + reference.about["ids"]]), "token_ids": np.array([511, 1104])}


@pytest.mark.parametrize("change", CHANGES)
def test_all_but_the_prompt_is_right_in_a_port_that_read_another_one(change):
    report, ids = compare(traced(), port(change), RULES), traced().about["ids"]
    assert report["other_prompt"] == {"expected": ids, "found": change(ids)}
    assert (report["passed"], report["first"]["name"], report["past_budget"]) == (False, IDS, 1)
    assert (report["first"]["relative_l2"], report["coverage"]["misfits"], report["others"]) == (None, 0, [])
    assert compare(traced(), port(list), RULES)["passed"]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (CHANGES[0], ["double-bos"]),
        pytest.param(CHANGES[1], ["no-newline"], marks=pytest.mark.slow),
        pytest.param(CHANGES[2], [], marks=pytest.mark.slow),
    ],
)
def test_no_mistake_in_positions_is_named_then(tmp_path, capsys, change, names):
    (tmp_path / "map.toml").write_text(MAP)
    save_file(port(change), tmp_path / "port.safetensors")
    words = [str(tmp_path / "port.safetensors"), "--map", str(tmp_path / "map.toml")]
    assert main(["diagnose", *words, "--json"]) == 1
    report, ids = json.loads(capsys.readouterr().out), traced().about["ids"]
    assert [mistake["name"] for mistake in report["mistakes"]] == names
    assert report["other_prompt"] == {"expected": ids, "found": change(ids)}
    main(["compare", *words])
    assert capsys.readouterr().out.startswith(f"prompt: the port read {len(change(ids))} tokens")


@pytest.mark.parametrize(("rows", "passed"), [(1635, True), (1700, True), (1634, False)])
def test_vocabulary_rows_that_both_have_are_compared(rows, passed):
    arrays = dict(traced().arrays)
    for name in [name for name in arrays if name.endswith("V")]:
        arrays[name] = np.pad(arrays[name], [(0, 0)] * (arrays[name].ndim - 1) + [(0, 36)])[..., :rows]
    report = compare(traced(), arrays)
    assert (report["passed"], report["coverage"]["misfits"] == 0) == (passed, passed)
    arrays["step.0/logit_BV"][0, 5] += 1
    assert compare(traced(), arrays)["first"]["name"].endswith("V")


@pytest.mark.parametrize(("kind", "stored"), [("softmax", np.exp), ("log-softmax", lambda log: log)])
def test_probabilities_in_place_of_logits_are_judged_as_logits(kind, stored):
    arrays = dict(traced().arrays)
    for name in [name for name in arrays if name.endswith("V")]:
        arrays[name] = stored(arrays[name] - np.logaddexp.reduce(arrays[name], -1, keepdims=True))
    report = compare(traced(), arrays)
    assert (report["passed"], report["stored_as"]) == (True, [kind])
    wrong = arrays | {"prefill.0/logit_BV": np.roll(arrays["prefill.0/logit_BV"], 1, -1)}
    assert compare(traced(), wrong)["first"]["name"] == "prefill.0/logit_BV"
    assert compare(traced(), dict(traced().arrays))["stored_as"] == []


def test_without_token_ids_the_port_is_compared_on_the_tokens_that_its_steps_took():
    reference, model = traced(), npgemma.load()
    image = load_image(npgemma.example_image(), model.config.vision.image_size)
    found = from_model(model, image, reference.about["ids"], [7, 1104]).arrays
    assert found["step.0/ids_BT"].item() != reference.token_ids[0]
    assert compare(reference, dict(found))["passed"]


def test_of_two_arrays_for_one_of_ours_the_second_is_told_to_be_unknown():
    reference = traced()
    name = "prefill.0/logit_BV"
    twice = {"first": reference.arrays[name], "second": 2 * reference.arrays[name]}
    report = compare(reference, twice, [Rule("first", name), Rule("second", name)])
    assert (report["passed"], report["coverage"]["unknown"]) == (True, 1)
