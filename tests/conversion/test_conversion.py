"""conversion/: every layout of names, every dtype, shards; and folders that are damaged."""

import contextlib
import json
import mmap
import struct
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from support import CONFIGS, GEMMA_2, rewrite

import conversion
from conversion import folder as reading
from conversion import refusals, safetensors_file, write
from conversion.layout import STORED, STORED_GEMMA_2, canonical, stored_leaves
from conversion.write import SHARD_BYTES, initial, write_folder
from npgemma.errors import InputError
from npgemma.fast import bfloat16
from npgemma.fast.bfloat16 import BFloat16Weight, narrow, widen
from npgemma.fast.dtypes import DTYPES
from npgemma.params import leaves, map_leaves

CONFIG = CONFIGS["two key/value heads"]


@pytest.fixture
def params():
    return conversion.random_params(CONFIG, 0)


@pytest.fixture
def saved(tmp_path, params):
    conversion.save(tmp_path / "model", params, CONFIG)
    return tmp_path / "model"


def assert_same(expected, found):
    for (name, _, a), (other, _, b) in zip(leaves(expected), leaves(found), strict=True):
        assert name == other
        assert a.dtype == b.dtype, name
        assert np.array_equal(a, b), name


# Reading what is right


def test_what_is_saved_is_read_back(saved, params):
    found, config = conversion.read_folder(saved)
    assert config == CONFIG
    assert_same(params, found)


@pytest.mark.parametrize("stored", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8"])
def test_paligemma_2_is_read_back_in_every_dtype(tmp_path, dtype, stored):
    params = conversion.random_params(GEMMA_2, 0)
    conversion.save(tmp_path, params, GEMMA_2, stored)
    found, config = conversion.read_folder(tmp_path, dtype)
    assert config == GEMMA_2
    for (name, _, expected), (other, _, array) in zip(leaves(params), leaves(found), strict=True):
        apart = np.abs(np.asarray(array) - expected).max() / np.abs(expected).max()
        assert name == other
        assert apart < {"float32": 1e-9, "float64": 1e-9, "bfloat16": 4e-3, "int8": 4e-3}[dtype], name


def test_float32_files_are_used_in_place(saved):
    """Every array is a view of the mapped file: nothing is copied."""
    found, _ = conversion.read_folder(saved)
    for name, _, array in leaves(found):
        assert not array.flags.writeable, name
        assert not array.flags.owndata, name


def test_bfloat16_is_widened_in_pieces_to_the_same_values(tmp_path, params, monkeypatch):
    """Pieces smaller than a row, and memory of the file given back on the way."""
    conversion.save(tmp_path, params, CONFIG, "bfloat16")
    monkeypatch.setattr(bfloat16, "PIECE", 7)
    monkeypatch.setattr(bfloat16, "STRETCH", 5000)
    for tensor in safetensors_file.read(tmp_path / "model.safetensors"):
        np.testing.assert_array_equal(bfloat16.widen_in_pieces(tensor.array, tensor.release), widen(tensor.array))


def test_layouts_are_those_of_the_mathematics(saved):
    """x @ W of the hub's (out, in) matrix, computed by torch's linear map."""
    tensors = {tensor.name: tensor.array for tensor in safetensors_file.read(saved / "model.safetensors")}
    found, _ = conversion.read_folder(saved)
    x = np.random.default_rng(0).standard_normal((5, CONFIG.text.width)).astype(np.float32)
    stored = torch.from_numpy(np.array(tensors["language_model.model.layers.1.self_attn.q_proj.weight"]))
    expected = torch.nn.functional.linear(torch.from_numpy(x), stored).unflatten(1, (CONFIG.text.query_heads, -1))
    assert np.allclose(np.einsum("TD,DNH->TNH", x, found.text.blocks[1].attn.q), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_files_are_widened_exactly(tmp_path, params, dtype):
    conversion.save(tmp_path, params, CONFIG, dtype)
    found, _ = conversion.read_folder(tmp_path)
    wanted = {"bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    rounded = map_leaves(lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(wanted).float().numpy(), params)
    assert_same(rounded, found)


def test_bfloat16_can_be_held_as_it_is(tmp_path, params):
    conversion.save(tmp_path, params, CONFIG, "bfloat16")
    found, _ = conversion.read_folder(tmp_path, "bfloat16")
    assert isinstance(found.text.blocks[0].attn.q, BFloat16Weight)
    assert found.text.norm.dtype == np.float32
    assert_same(map_leaves(lambda x: widen(narrow(x)), params), map_leaves(np.asarray, found))


def test_float64(saved, params):
    found, _ = conversion.read_folder(saved, "float64")
    assert_same(map_leaves(lambda x: x.astype(np.float64), params), found)


def test_narrowing_rounds_as_torch_does():
    randomness = np.random.default_rng(0)
    x = randomness.integers(0, 2**32, 10**5, dtype=np.uint32).view(np.float32)
    x = np.append(x[np.isfinite(x)], np.float32([1.00390625, 1.01171875, 0.0, -0.0, 1e-40]))
    expected = torch.from_numpy(x).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(narrow(x), expected)


def test_shards_and_their_index(tmp_path, params):
    stored = {leaf.name: leaf for leaf in stored_leaves(CONFIG).values()}
    arrays = {name: stored[name].store(array) for name, _, array in leaves(params)}
    write_folder(tmp_path, CONFIG, lambda leaf: arrays[leaf.name], shard_bytes=30_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert_same(params, conversion.read_folder(tmp_path)[0])
    assert SHARD_BYTES == 5_000_000_000


def test_a_shard_is_full_when_one_more_tensor_would_be_too_much():
    """Tensors of 2, 3, 1, 9, 1 and 4 entries, of two bytes each."""

    def shards(most):
        leaves = [SimpleNamespace(stored_shape=(size,)) for size in (2, 3, 1, 9, 1, 4)]
        return [[leaf.stored_shape[0] for leaf in shard] for shard in write._shards(leaves, 2, most)]

    assert shards(12) == [[2, 3, 1], [9], [1, 4]]
    assert shards(11) == [[2, 3], [1], [9], [1, 4]]
    assert shards(9) == [[2], [3, 1], [9], [1], [4]]
    assert shards(40) == [[2, 3, 1, 9, 1, 4]]
    assert shards(0) == [[2], [3], [1], [9], [1], [4]]


@pytest.mark.parametrize(
    ("said", "dtypes", "right"),
    [
        (12, "F32 F32", True),
        (12, "F32 BF16", True),
        (11, "F32 F32", True),
        (11, "F32 BF16", False),
        (None, "F32 BF16", True),
    ],
)
def test_shards_of_two_dtypes_and_another_size_are_of_two_checkpoints(said, dtypes, right):
    """Some checkpoints have norms in another dtype, and some programs count bytes otherwise; hardly one does both."""
    shards = {str(i): [SimpleNamespace(bytes=6, dtype=dtype)] for i, dtype in enumerate(dtypes.split())}
    index = {} if said is None else {"metadata": {"total_size": said}}
    with contextlib.nullcontext() if right else pytest.raises(InputError, match=r"two checkpoints .*12 bytes"):
        refusals.check_shards(index, shards | {"empty": []}, "folder")


def test_what_is_released_are_the_pages_that_it_began():
    file, page = Mock(), mmap.PAGESIZE
    tensor = safetensors_file.Tensor("x", "F32", (9,), np.zeros(9, np.float32), file, offset=page - 8)
    tensor.release(0, 2 + page // 4)
    file.madvise.assert_called_once_with(mmap.MADV_DONTNEED, 0, 2 * page)
    tensor.release(2, 1 + page // 4)
    file.madvise.assert_called_once()


GENERATIONS = {
    "hub, 4.41 to 4.51": {},
    "4.52 to 4.57": {
        "language_model.model.": "model.language_model.",
        "vision_tower.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    },
    "5, in memory": {
        "language_model.model.": "model.language_model.",
        "vision_tower.vision_model.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    },
    "5, saved": {"vision_tower.vision_model.": "vision_tower."},
}


def renamed(name, generation):
    for old, new in GENERATIONS[generation].items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_of_names(saved, params, generation):
    rewrite(saved, lambda name, dtype, array: [(renamed(name, generation), dtype, array)])
    assert_same(params, conversion.read_folder(saved)[0])


@pytest.mark.parametrize("head", ["lm_head.weight", "language_model.lm_head.weight"])
def test_a_stored_output_head_must_be_the_embedding_table(saved, params, head):
    def with_head(factor):
        def change(name, dtype, array):
            copy = [(head, dtype, factor * array)] if name.endswith("embed_tokens.weight") else []
            return [(name, dtype, array), *copy] if name != head else []

        return change

    rewrite(saved, with_head(np.float32(1)))
    assert_same(params, conversion.read_folder(saved)[0])
    rewrite(saved, with_head(np.float32(2)))
    with pytest.raises(InputError, match="one table"):
        conversion.read_folder(saved)


def test_tensors_at_odd_addresses_are_read(saved, params):
    """A float32 behind a single bfloat16 stands at an address that is no multiple of four."""

    def change(name, dtype, array):
        return [(name, "BF16", narrow(array))] if name.endswith("post_layernorm.bias") else [(name, dtype, array)]

    rewrite(saved, change)
    path = saved / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    path.write_bytes((length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :])
    found, _ = conversion.read_folder(saved)
    assert np.array_equal(found.text.embedding, params.text.embedding)
    assert found.text.embedding.flags.aligned


def test_progress_counts_every_byte(saved):
    calls = []
    conversion.read_folder(saved, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] == sum(t.bytes for t in safetensors_file.read(saved / "model.safetensors"))


@pytest.mark.parametrize("config", [CONFIG, GEMMA_2])
def test_table_of_names_is_one_to_one(config):
    stored = [leaf.stored_name for leaf in stored_leaves(config).values()]
    assert len(stored) == len(set(stored))
    assert all(canonical(name) == name for name in stored)
    for table in (STORED, STORED_GEMMA_2):
        assert len({name for name, _ in table.values()}) == len(table)


@pytest.mark.parametrize("config", [CONFIG, GEMMA_2])
def test_storing_undoes_viewing(config):
    for leaf in stored_leaves(config).values():
        array = initial(leaf, np.random.default_rng(0))
        assert np.array_equal(leaf.store(leaf.view(array)), array)


# Refusing what is wrong


def refused(folder, says, **settings):
    with pytest.raises(InputError, match=says):
        conversion.read_folder(folder, **settings)


def test_missing_folder_config_and_weights(tmp_path, saved):
    refused(tmp_path / "nowhere", "should be a folder")
    refused(saved / "config.json", "should be a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"config\.json' is missing")
    (saved / "model.safetensors").unlink()
    refused(saved, "holds neither")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]"])
def test_damaged_config(saved, content):
    (saved / "config.json").write_bytes(content)
    refused(saved, r"config\.json")


def test_missing_misshapen_and_unknown_tensors(saved):
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    path = saved / "model.safetensors"
    good = path.read_bytes()
    rewrite(saved, lambda n, d, a: [] if n == name else [(n, d, a)])
    refused(saved, f"{name} of shape .56, 30. is missing")
    path.write_bytes(good)
    rewrite(saved, lambda n, d, a: [(n, d, a.T if n == name else a)])
    refused(saved, r"should have the shape .56, 30. by config.json, found .30, 56.")
    path.write_bytes(good)
    rewrite(saved, lambda n, d, a: [(n, d, a), *([("extra.weight", d, a)] if n == name else [])])
    refused(saved, r"does not have: extra\.weight")
    path.write_bytes(good)
    rewrite(saved, lambda n, d, a: [(n, d, a), *([(n.replace("model.", "", 1), d, a)] if n == name else [])])
    refused(saved, "under two names")


@pytest.mark.parametrize("word", ["I64", "U8"])
def test_other_dtypes(saved, word):
    rewrite(saved, lambda n, d, a: [(n, word, a.astype(safetensors_file.NUMPY[word]))])
    refused(saved, f"should be F64, F32, F16, BF16, found {word}")


def test_another_models_sizes(saved):
    config = json.loads((saved / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 2
    (saved / "config.json").write_text(json.dumps(config))
    refused(saved, "does not have: language_model.model.layers.2")


def header(entries, data=b""):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


DAMAGED = {
    "empty": b"\0",
    "short": b"\x01\x02",
    "header longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "header of all memory": struct.pack("<Q", 2**63) + b"{}",
    "not JSON": header(b"{{{{"),
    "offsets beyond the end": header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"1234"),
    "offsets backwards": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
    "a shape of another size": header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, b"1234"),
    "a shape that overflows": header({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 4]}}, b"1234"),
    "overlapping tensors": header(
        {x: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for x in "ab"}, b"1234"
    ),
    "a hole": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
    "a hundred axes": header({"a": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}}, b"1234"),
    "huge axes of nothing": header({"a": {"dtype": "F32", "shape": [0, 2**60, 2**60], "data_offsets": [0, 0]}}),
    "truncated": header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
    "an unknown dtype": header({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_weights(saved, damage):
    (saved / "model.safetensors").write_bytes(DAMAGED[damage])
    refused(saved, "not a complete safetensors file")


@pytest.mark.parametrize(
    ("name", "dtype", "count", "says"),
    [("x", "F32", 30_001, "holds 30001 tensors"), ("x" * 400, "F32", 40_000, "too many for 30000"),
     ("x" * 501, "F32", 1, "more than 500"), (".quant_state." * 30, "F32", 1, "quantised"),
     ("\x1b[31m", "F32", 1, "is missing"), ("x", "F8_E4M3", 1, "is F8_E4M3")],
)  # fmt: skip
def test_names_dtypes_and_numbers_of_tensors_have_limits(saved, name, dtype, count, says):
    entry = {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]}
    (saved / "model.safetensors").write_bytes(header({name + str(i) * (count > 1): entry for i in range(count)}))
    refused(saved, says)


def test_names_longer_than_the_system_takes(saved):
    refused("x" * 300, "should be a folder")
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x" * 300}}))
    refused(saved, "are missing")


def test_metadata_that_are_no_text_do_not_spoil_a_file(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors_file.write(path, [("a", "F32", (1,))], [np.ones(1, np.float32)], {"prompt": "a\udcff"})
    assert safetensors_file.read(path)[0].array == 1


def test_a_link_is_followed_when_writing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    safetensors_file.write(tmp_path / "link", [("a", "F32", (1,))], [np.ones(1, np.float32)])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").is_file()


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "C:\\x"])
def test_a_shard_outside_the_folder(saved, shard):
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    refused(saved, "not a file name inside the folder")


def test_an_index_that_does_not_fit_its_shards(saved):
    (saved / "model.safetensors").rename(saved / "one.safetensors")
    index = saved / "model.safetensors.index.json"
    names = [t.name for t in safetensors_file.read(saved / "one.safetensors")]
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "one.safetensors")}))
    conversion.read_folder(saved)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "two.safetensors")}))
    refused(saved, "two.safetensors' are missing")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names[1:], "one.safetensors")}))
    refused(saved, "does not place there")
    index.write_text(json.dumps({"weight_map": dict.fromkeys([*names, "more"], "one.safetensors")}))
    refused(saved, "places more in")
    for content in ("[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": []}}', "{"):
        index.write_text(content)
        refused(saved, "index.json")


def test_too_little_memory_is_noticed_before_loading(tmp_path, params, monkeypatch):
    conversion.save(tmp_path, params, CONFIG, "bfloat16")
    monkeypatch.setattr(reading, "build", lambda *_: pytest.fail("began to load"))
    _, tensors = reading.open_folder(tmp_path)
    size = {dtype: reading._bytes(tensors, dtype, in_place=1) for dtype in DTYPES}
    assert sorted(size, key=size.get, reverse=True) == list(DTYPES)
    for needed, fits in (("float64", "float32"), ("float32", "bfloat16"), ("float32", "int8"), ("float64", "int8")):
        monkeypatch.setattr(reading, "available_memory", lambda fits=fits: size[fits])
        refused(tmp_path, f"--dtype {fits} would fit", dtype=needed)
    monkeypatch.setattr(reading, "available_memory", lambda: size["int8"] - 1)
    refused(tmp_path, "nothing narrower", dtype="float32")
    for dtype in ("float64", "float32", "int8"):
        needed = reading._bytes(tensors, dtype, in_place=0)
        monkeypatch.setattr(reading, "available_memory", lambda needed=needed: needed)
        reading._check_memory(tensors, dtype, tmp_path)
        monkeypatch.setattr(reading, "available_memory", lambda needed=needed: needed - 1)
        refused(tmp_path, f"as {dtype}, but", dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mapped_weights_need_no_memory(tmp_path, params, monkeypatch, dtype):
    conversion.save(tmp_path, params, CONFIG, dtype)
    monkeypatch.setattr(reading, "available_memory", lambda: 0)
    assert conversion.read_folder(tmp_path, dtype)[0].text.embedding.size > 0


def test_nothing_half_written_is_left(tmp_path):
    def arrays():
        yield np.zeros(3, np.float32)
        raise MemoryError

    with pytest.raises(MemoryError):
        safetensors_file.write(tmp_path / "file", [("a", "F32", (3,)), ("b", "F32", (3,))], arrays())
    assert list(tmp_path.iterdir()) == []
