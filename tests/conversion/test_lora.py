"""LoRA adapters: merged as peft merges them, by stored goldens; damaged ones and other kinds are refused."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from support import CONFIGS

import conversion
import npgemma
import torch_ref
from conversion import safetensors_file
from conversion.folder import describe
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


def write(folder, parts, prefix="base_model.model." + MODULE):
    arrays = {f"{prefix}.{name}.weight": np.float32(array) for name, array in parts.items()}
    entries = [(name, "F32", array.shape) for name, array in arrays.items()]
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
        ({"r": "x"}, "r should be a number"),
        ({"lora_alpha": None}, "lora_alpha should be"),
        ({"alpha_pattern": {"(": 3}}, "no pattern"),
        ({"rank_pattern": [1]}, "rank_pattern should"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
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
    ],
)
def test_adapters_that_do_not_fit(adapter, parts, prefix, says):
    write(adapter, parts, prefix)
    with pytest.raises(InputError, match=says):
        conversion.read_checkpoint(adapter)


def test_an_adapter_with_random_damage_is_read_or_refused(adapter):
    whole, randomness = json.loads((adapter / "adapter_config.json").read_text()), np.random.default_rng(0)
    junk = [None, True, -1, 1e400, "x", [], {}, [[]], {"x": 1}, {"x": None}]
    names = [*whole, "rank_pattern", "alpha_pattern", "use_rslora", "modules_to_save", "init_lora_weights"]
    content = (adapter / "adapter_model.safetensors").read_bytes()
    refused = 0
    for _ in range(150):
        settings(adapter, **whole | {randomness.choice(names): junk[randomness.integers(len(junk))]})
        damaged = bytearray(content)
        if randomness.random() < 0.5:
            damaged[randomness.integers(len(damaged[:400]))] = randomness.integers(256)
        (adapter / "adapter_model.safetensors").write_bytes(damaged)
        try:
            conversion.read_checkpoint(adapter)
        except InputError:
            refused += 1
    assert 20 < refused < 150


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


def test_an_adapter_that_brings_more_rows(adapter, base):
    """A fine-tune that added tokens saves its table, which is longer than the base's."""
    table = np.array(conversion.read_folder(base)[0].text.embedding)
    table = np.concatenate([table, table[:3]])
    arrays = {"base_model.model.model.language_model.embed_tokens.weight": table}
    safetensors_file.write(adapter / "adapter_model.safetensors", [(*arrays, "F32", table.shape)], arrays.values())
    params, config = conversion.read_folder(adapter)
    assert config.text.vocabulary == len(table)
    assert np.array_equal(params.text.embedding, table)
