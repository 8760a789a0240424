"""LoRA adapters: merged as peft merges them, by stored goldens; damaged ones and other kinds are refused."""

import contextlib
import json
import pathlib
import random
import re
import shutil

import numpy as np
import pytest
from support import CONFIGS

import conversion
import npgemma
import torch_ref
from conversion import lora, safetensors_file
from conversion.folder import describe
from conversion.notes import notes_of
from conversion.patterns import matches
from npgemma.errors import InputError
from npgemma.params import leaves

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
KINDS = [path.name for path in sorted((GOLDEN / "lora").iterdir())]
CONFIG = CONFIGS["two key/value heads"]
MODULE = "language_model.model.layers.1.self_attn.q_proj"


@pytest.fixture
def base(tmp_path):
    conversion.save(tmp_path / "base", conversion.random_params(CONFIG, 0), CONFIG)
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path, base):
    """A rank of 4 on one projection, beside its base."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    shape = describe(base)["tensors"]
    outputs, inputs = next(t["shape"] for t in shape if t["stored_name"] == MODULE + ".weight")
    randomness = np.random.default_rng(1)
    write(folder, {
        "lora_A": randomness.standard_normal((4, inputs)), "lora_B": randomness.standard_normal((outputs, 4)),
    })  # fmt: skip
    settings(folder, peft_type="LORA", r=4, lora_alpha=6, base_model_name_or_path="someone/base")
    return folder


def settings(folder, **values):
    path = folder / "adapter_config.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | values))


def write(folder, parts, prefix="base_model.model." + MODULE, dtype="F32", ending="weight"):
    kind = safetensors_file.NUMPY[dtype]
    arrays = {f"{prefix}.{name}.{ending}": np.asarray(array, kind) for name, array in parts.items()}
    entries = [(name, dtype, array.shape) for name, array in arrays.items()]
    safetensors_file.write(folder / "adapter_model.safetensors", entries, arrays.values())


def delta(folder, name="text.blocks.1.attn.q", **where):
    """What the adapter changes, by our names."""
    source = conversion.Source.of(folder, **where)
    merged = {n: np.asarray(a) for n, _, a in leaves(conversion.read_folder(source)[0])}
    plain = {n: np.asarray(a) for n, _, a in leaves(conversion.read_folder(conversion.Source(source.weights))[0])}
    changed = [n for n in merged if not np.array_equal(merged[n], plain[n])]
    assert changed == [name]
    return merged[name] - plain[name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("package", [npgemma, torch_ref])
def test_logits_are_those_of_peft(kind, package):
    """Every kind of scaling, pattern and saved module, in both backends."""
    tensors = safetensors_file.read(GOLDEN / "lora" / kind / "expected.safetensors")
    expected = {tensor.name: np.array(tensor.array) for tensor in tensors}
    # As tests/golden/make_lora.py makes them.
    pixels = np.cos(0.7 * np.arange(2 * 224 * 224 * 3, dtype=np.float64)).reshape(2, 224, 224, 3).astype(np.float32)
    question = pixels, expected["ids"], expected["ids"].shape[1]
    model = package.load(GOLDEN / "lora" / kind, base=GOLDEN / "hub")
    found = np.asarray(model.logits(*question))
    # Measured in float32: 2.7e-5 of the standard deviation at most.
    apart = np.abs(found - expected["logits"]).max() / expected["logits"].std()
    assert apart < 3e-5
    plain = np.asarray(package.load(GOLDEN / "hub").logits(*question))
    assert np.abs(found - plain).max() > 0.05 * expected["logits"].std()


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int8"])
def test_an_adapter_in_every_dtype(adapter, dtype):
    merged = conversion.read_folder(adapter)[0].text.blocks[1].attn.q
    found = np.asarray(conversion.read_folder(adapter, dtype)[0].text.blocks[1].attn.q)
    assert np.abs(found - merged).max() < (1e-9 if dtype == "float64" else 8e-3) * np.abs(merged).max()


def test_scaling(adapter):
    plain = delta(adapter)
    settings(adapter, use_rslora=True)
    np.testing.assert_allclose(delta(adapter), plain * 2, atol=1e-5)
    settings(adapter, use_rslora=False, alpha_pattern={"k_proj": 1, r"layers\.1\.self_attn\.q_proj": 12})
    np.testing.assert_allclose(delta(adapter), plain * 2, atol=1e-5)
    settings(adapter, alpha_pattern={}, r=7, rank_pattern={"q_proj": 4})
    np.testing.assert_allclose(delta(adapter), plain, atol=1e-5)


def test_where_the_base_is_looked_for(adapter, base, tmp_path, monkeypatch):
    expected = delta(adapter)
    settings(adapter, base_model_name_or_path=str(base))
    assert np.array_equal(delta(adapter), expected)
    settings(adapter, base_model_name_or_path="google/other")
    with pytest.raises(InputError, match="pass the folder of that checkpoint with --base"):
        delta(adapter)
    assert np.array_equal(delta(adapter, base=base), expected)
    for path in base.iterdir():
        shutil.copy(path, adapter)
    assert np.array_equal(delta(adapter), expected)
    with pytest.raises(InputError, match="leave it out"):
        conversion.Source.of(base, base)


def test_the_adapters_own_small_files_come_first(adapter, base):
    shutil.copy(npgemma.embedded_checkpoint() / "tokenizer.model", adapter)
    (adapter / "generation_config.json").write_text('{"eos_token_id": 7}')
    with pytest.raises(InputError, match="embedding rows"):
        conversion.read_checkpoint(adapter)
    (adapter / "tokenizer.model").unlink()
    assert conversion.read_checkpoint(adapter)[1].eos_tokens == (7, 1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"r": 5}, "disagree about the rank"),
        ({"r": "x"}, "r should be a finite number"),
        ({"r": 0}, "r should be a number above 0"),
        ({"lora_alpha": None}, "lora_alpha should be"),
        ({"alpha_pattern": {"x": -1}}, "x should be a number above 0"),
        ({"rank_pattern": [1]}, "rank_pattern should"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"use_something_new": True}, "use_something_new"),
        ({"modules_to_save": ["multi_modal_projector"]}, "lacks multi_modal_projector.linear.weight"),
        ({"modules_to_save": ["lm_head"]}, "lacks language_model.model.embed_tokens.weight"),
    ],
)
def test_other_adapters_are_refused(adapter, values, says):
    settings(adapter, **values)
    with pytest.raises(InputError, match=says):
        conversion.read_checkpoint(adapter)


@pytest.mark.parametrize(
    ("parts", "prefix", "says"),
    [
        ({"lora_A": np.ones((4, 30))}, "base_model.model." + MODULE, "should hold A and B"),
        ({"lora_A": np.ones((4, 7)), "lora_B": np.ones((60, 4))}, "base_model.model." + MODULE, "do not fit"),
        ({"lora_A": np.ones((4, 30)), "lora_B": np.ones((60, 4))}, "base_model.model.lm_head", "output head alone"),
        ({"lora_A": np.ones((4, 30)), "lora_B": np.ones((60, 4))}, "base_model.model.x", "does not have"),
        ({"lora_magnitude_vector": np.ones(4)}, "base_model.model." + MODULE, "does not have"),
        ({"lora_A": np.ones(()), "lora_B": np.ones(())}, "base_model.model." + MODULE, "do not fit"),
        (dict.fromkeys(("lora_A", "lora_A.x"), np.ones((4, 30))), "base_model.model." + MODULE, "under two names"),
        (
            dict.fromkeys(("lora_A.x", "lora_A.y"), np.ones((4, 30))),
            "base_model.model." + MODULE,
            "two adapters, x and y",
        ),
    ],
)
def test_adapters_that_do_not_fit(adapter, parts, prefix, says):
    write(adapter, parts, prefix)
    with pytest.raises(InputError, match=says):
        conversion.read_checkpoint(adapter)


@pytest.mark.parametrize("modules", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_table_or_head_that_is_trained_alone_is_untied(adapter, base, modules):
    table = np.array(conversion.read_folder(base)[0].text.embedding)
    arrays = {f"base_model.model.model.language_model.{name}.weight": table + i for i, name in enumerate(modules, 1)}
    arrays = {name.replace("model.language_model.lm_head", "lm_head"): array for name, array in arrays.items()}
    entries = [(name, "F32", array.shape) for name, array in arrays.items()]
    safetensors_file.write(adapter / "adapter_model.safetensors", entries, arrays.values())
    settings(adapter, modules_to_save=modules)
    with pytest.raises(InputError, match="unties"):
        conversion.read_checkpoint(adapter)
    safetensors_file.write(adapter / "adapter_model.safetensors", entries, [table for _ in entries])
    conversion.read_checkpoint(adapter)


def test_an_adapter_that_brings_more_rows(adapter, base):
    """A fine-tune that added tokens saves its table, which is longer than the base's."""
    table = np.array(conversion.read_folder(base)[0].text.embedding)
    table = np.concatenate([table, table[:3]])
    arrays = {"base_model.model.model.language_model.embed_tokens.weight": table}
    safetensors_file.write(adapter / "adapter_model.safetensors", [(*arrays, "F32", table.shape)], arrays.values())
    params, config = conversion.read_folder(adapter)
    assert config.text.vocabulary == len(table)
    assert np.array_equal(params.text.embedding, table)


def test_patterns_match_what_pefts_expressions_match():
    draw, matched = random.Random(0), 0
    names = ["", ".", "a", "b.a", "a.b.ab", "x.layers.1.fc1", "layers.17.q_proj", "x.layers.18.q_proj"]
    letters = [
        *"ab1.",
        r"\.",
        r"\d",
        "[0-9]",
        "[ab]",
        "layers",
        "q_proj",
        "([0-9]|1[0-7])",
        "(a|b.|)",
        "((a|fc)|(?:1))",
    ]
    for _ in range(2000):
        drawn = [draw.choice(letters) for _ in range(draw.randint(0, 6))]
        key = "".join(x if x[-1] == ")" else x + draw.choice(["", "*", "+", "?", "*?"]) for x in drawn)
        key = draw.choice(["", "", "^", ".*", "a|"]) + key + draw.choice(["", "", "$", "|b"])
        expected = [name for name in names if re.match(rf"(.*\.)?({key})$", name)]
        assert matches([key], names, "")[key] == expected, key
        matched += 0 < len(expected) < len(names)
    assert matched > 500


OTHERS = "(a+)+$", "a{1,4294967294}", "(", "a)", "(?i)q_proj", r"\w", "[^a]", "[a", "a++", "\\", "(" * 100_000


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        *(([key], "is no pattern that npgemma reads: write it with names") for key in OTHERS),
        ([f"{i:x}" for i in range(100_000)], "letters in 100000 keys"),
        (["x" * 300_000], "300001 letters in 1 keys"),
    ],
)
def test_other_patterns_are_refused_in_one_sentence(adapter, keys, says):
    settings(adapter, rank_pattern=dict.fromkeys(keys, 4))
    with pytest.raises(InputError, match=f"rank_pattern has .*{says}"):
        conversion.read_checkpoint(adapter)


@pytest.mark.parametrize(("name", "dtype"), [(".default", "F32"), (".a b", "F32"), ("", "F64"), (".weight", "F64")])
def test_tensors_with_the_adapters_name_and_of_any_dtype(adapter, name, dtype):
    plain = delta(adapter)
    tensors = {tensor.name.split(".")[-2]: tensor.array for tensor in safetensors_file.read(adapter / lora.WEIGHTS)}
    write(adapter, {key + name: np.array(array) for key, array in tensors.items()}, dtype=dtype)
    assert np.array_equal(delta(adapter), plain)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"modules_to_save": ["classifier"], "target_modules": "all-linear", "rank_pattern": {"q_proj": 4}}, None),
        (
            {"rank_pattern": {"lm_head": 4}, "target_modules": ["other", "down_proj"]},
            "rank_pattern lm_head, and 3 more",
        ),
        ({"target_modules": ["down_proj"]}, "nothing for language_model.model.layers.0.mlp.down_proj.weight"),
    ],
)
def test_what_is_declared_and_not_held_is_noted(adapter, values, says):
    settings(adapter, **values)
    notes = notes_of(adapter)
    assert notes == [] if says is None else says in notes[0]


def test_a_pickle_is_called_one(adapter):
    (adapter / lora.WEIGHTS).rename(adapter / "adapter_model.bin")
    with pytest.raises(InputError, match="a PyTorch pickle"):
        conversion.read_checkpoint(adapter)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("tokenizer.model", lambda model: model.replace(b"<loc0007>", b"<loc0oo7>"), "say which with --tokenizer"),
        ("tokenizer.model", lambda model: model, None),
        ("added_tokens.json", lambda model: b'{"<defect>": 9}', "id 9 is '<0x03>' in .*, but '<defect>' in"),
        ("added_tokens.json", lambda model: b'{"<loc0000>": 483}', None),
        ("added_tokens.json", lambda model: b'["<defect>"]', "should be an object"),
    ],
)
def test_an_adapters_tokenizer_is_that_of_its_base(tmp_path, file, content, says):
    place = npgemma.embedded_checkpoint()
    bias = next(tensor for tensor in describe(place)["tensors"] if tensor["stored_name"].endswith("linear.bias"))
    write(tmp_path, {"linear": np.ones(bias["shape"])}, "base_model.model.multi_modal_projector", ending="bias")
    settings(tmp_path, r=1, lora_alpha=1)
    (tmp_path / file).write_bytes(content((place / "tokenizer.model").read_bytes()))
    with pytest.raises(InputError, match=says) if says else contextlib.nullcontext():
        conversion.read_checkpoint(conversion.Source.of(tmp_path, base=place))
