"""big_vision's npz: read in every dtype, equal to the hub's layout bit for bit, recognised by shapes, or refused."""

import io
import json
import re
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from support import CONFIGS, inputs, on_numpy

import conversion
import npgemma
from conversion import big_vision
from conversion.codebook import read_codebook
from conversion.hub_config import to_hub
from conversion.write import FILE_DTYPES, cast
from npgemma.config import PUBLISHED
from npgemma.errors import InputError
from npgemma.fast.bfloat16 import narrow, widen
from npgemma.files.npz import read_npz
from npgemma.params import leaves

FAMILIES = "two key/value heads", "Gemma 2"


def flax_arrays(params, config):
    """The tree in big_vision's layout, written out by hand from SPEC 7.3, not from the table that is tested."""
    vision, text = params.vision, params.text

    def stack(part):
        return np.stack([part(block) for block in vision.blocks])

    def rows(part):
        return np.stack([part(block) for block in text.blocks])

    block, attention = "img/Transformer/encoderblock/", "img/Transformer/encoderblock/MultiHeadDotProductAttention_0/"
    # Ours are already as the einsums want them: DNH, DKH, NHD, DF, FD.
    found = {
        "img/embedding/bias": vision.patch_embedding_bias,
        "img/pos_embedding": vision.position_embedding[None],
        "img/Transformer/encoder_norm/scale": vision.norm.scale,
        "img/Transformer/encoder_norm/bias": vision.norm.bias,
        "img/head/bias": params.projector.bias,
        block + "LayerNorm_0/scale": stack(lambda b: b.attn_norm.scale),
        block + "LayerNorm_0/bias": stack(lambda b: b.attn_norm.bias),
        block + "LayerNorm_1/scale": stack(lambda b: b.mlp_norm.scale),
        block + "LayerNorm_1/bias": stack(lambda b: b.mlp_norm.bias),
        attention + "query/kernel": stack(lambda b: b.attn.q),
        attention + "query/bias": stack(lambda b: b.attn.q_bias),
        attention + "key/kernel": stack(lambda b: b.attn.k),
        attention + "key/bias": stack(lambda b: b.attn.k_bias),
        attention + "value/kernel": stack(lambda b: b.attn.v),
        attention + "value/bias": stack(lambda b: b.attn.v_bias),
        attention + "out/kernel": stack(lambda b: b.attn.o),
        attention + "out/bias": stack(lambda b: b.attn.o_bias),
        block + "MlpBlock_0/Dense_0/kernel": stack(lambda b: b.mlp.up),
        block + "MlpBlock_0/Dense_0/bias": stack(lambda b: b.mlp.up_bias),
        block + "MlpBlock_0/Dense_1/kernel": stack(lambda b: b.mlp.down),
        block + "MlpBlock_0/Dense_1/bias": stack(lambda b: b.mlp.down_bias),
        "llm/embedder/input_embedding": text.embedding,
        "llm/final_norm/scale": text.norm,
        "llm/layers/pre_attention_norm/scale": rows(lambda b: b.attn_norm),
        "llm/layers/pre_ffw_norm/scale": rows(lambda b: b.mlp_norm),
        "llm/layers/attn/q_einsum/w": rows(lambda b: b.attn.q.transpose(1, 0, 2)),
        "llm/layers/attn/kv_einsum/w": rows(lambda b: np.stack([b.attn.k, b.attn.v]).transpose(0, 2, 1, 3)),
        "llm/layers/attn/attn_vec_einsum/w": rows(lambda b: b.attn.o),
        "llm/layers/mlp/gating_einsum": rows(lambda b: np.stack([b.mlp.gate, b.mlp.up])),
        "llm/layers/mlp/linear": rows(lambda b: b.mlp.down),
    }
    if config is CONFIGS["Gemma 2"]:
        found["llm/layers/post_attention_norm/scale"] = rows(lambda b: b.attn_out_norm)
        found["llm/layers/post_ffw_norm/scale"] = rows(lambda b: b.mlp_out_norm)
    order = leaf_axes("vision.patch_embedding", config)
    found["img/embedding/kernel"] = vision.patch_embedding.transpose([order.index(letter) for letter in "yxCD"])
    order = leaf_axes("projector.linear", config)
    found["img/head/kernel"] = params.projector.linear.transpose([order.index(letter) for letter in "ED"])
    return found


def leaf_axes(name, config):
    return next(axes for other, axes, _ in leaves(conversion.random_params(config, 0)) if other == name)


def save(path, arrays, dtype="float32", prefix="params/", compressed=False):
    stored = {prefix + name: cast(np.ascontiguousarray(array), dtype) for name, array in arrays.items()}
    if dtype == "bfloat16":
        stored = {name: array.view("V2") for name, array in stored.items()}
    (np.savez_compressed if compressed else np.savez)(path, **stored)


@pytest.fixture(params=FAMILIES)
def checkpoint(request, tmp_path):
    """A model of either family: its sizes, its weights, its config.json and its npz."""
    config = CONFIGS[request.param]
    params = conversion.random_params(config, 0)
    (tmp_path / "config.json").write_text(json.dumps(to_hub(config)))
    save(tmp_path / "model.npz", flax_arrays(params, config))
    return config, params, tmp_path / "config.json", tmp_path / "model.npz"


def read(checkpoint, dtype="float32"):
    _, _, config, path = checkpoint
    return conversion.read_folder(conversion.Source.of(path, config=config), dtype)


@pytest.mark.parametrize("dtype", FILE_DTYPES)
@pytest.mark.parametrize("prefix", ["", "params/"])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_dtype_with_or_without_prefix(checkpoint, dtype, prefix, compressed):
    config, params, _, path = checkpoint
    save(path, flax_arrays(params, config), dtype, prefix, compressed)
    found, sizes = read(checkpoint)
    assert sizes == config
    conversion.save(path.parent / "hub", params, config, dtype)
    expected, _ = conversion.read_folder(path.parent / "hub")
    for (name, _, a), (_, _, b) in zip(leaves(expected), leaves(found), strict=True):
        assert np.array_equal(a, b), name
        # A product that takes the hub's layout as it lies takes this one.
        assert a.strides == b.strides, name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_same_weights_in_both_layouts_give_identical_logits(checkpoint, dtype):
    config, params, _, path = checkpoint
    conversion.save(path.parent / "hub", params, config)
    pixels, ids, prefix, valid = inputs(config, "float32")
    logits = [
        on_numpy(found, config, dtype).logits(pixels, ids, prefix, valid)
        for found in (conversion.read_folder(path.parent / "hub", dtype)[0], read(checkpoint, dtype)[0])
    ]
    assert np.array_equal(*logits)


def test_a_published_variant_is_recognised_by_its_shapes():
    for name, config in PUBLISHED.items():
        shapes = big_vision.layout(config)[1] | {"llm/embedder/input_embedding": (257152, config.text.width)}
        found = big_vision._recognised("x.npz", {key: SimpleNamespace(shape=shape) for key, shape in shapes.items()})
        assert found.text.vocabulary == 257152
        assert found.vision == config.vision, name
        assert type(found.text) is type(config.text)
        assert found.text.width == config.text.width


def test_a_tokenizer_is_given_beside_it(checkpoint):
    _, _, config, path = checkpoint
    words = npgemma.embedded_checkpoint() / "tokenizer.model"
    with pytest.raises(InputError, match="embedding rows"):
        npgemma.load(path, config=config, tokenizer=words)
    shutil.copy(words, path.parent)
    assert npgemma.load(path, config=config).loaded_tokenizer is None


def test_what_is_no_such_file_is_refused(checkpoint):
    config, params, config_file, path = checkpoint
    with pytest.raises(InputError, match=r"pass the config\.json"):
        conversion.read_folder(path)
    with pytest.raises(InputError, match="leave it out"):
        conversion.Source.of(npgemma.embedded_checkpoint(), config=config_file)
    arrays = flax_arrays(params, config)
    for change, says in [
        ({"extra": np.ones(3)}, "holds extra"),
        ({"img/head/bias": None}, "lacks img/head/bias"),
        ({"img/head/bias": np.ones(7)}, "of shape .30,. by its"),
        ({"llm/layers/attn/q_einsum/w": np.ones(())}, "q_einsum"),
    ]:
        changed = {name: array for name, array in (arrays | change).items() if array is not None}
        save(path, changed)
        with pytest.raises(InputError, match=says):
            read(checkpoint)
    np.savez(path, **{name: array.astype(np.int32) for name, array in arrays.items()})
    with pytest.raises(InputError, match="should be float64, float32, float16 or bfloat16"):
        read(checkpoint)


def npy(descr="'<f4'", shape="(3,)", data=bytes(12), version=b"\1\0", length=None):
    """An array as a file, with any header."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode("latin1")
    size = (len(text) if length is None else length).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + size + text + data


def zipped(content, method=zipfile.ZIP_STORED, name="a.npy", place=4, part=b""):
    """A zip of one member, with a part of its entry in the list of members replaced."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    start = file.getvalue().index(b"PK\1\2") + place
    return file.getvalue()[:start] + part + file.getvalue()[start + len(part) :]


ENTRY = b"PK\1\2" + bytes(24) + b"\1\0" + bytes(16) + b"a"
PACKED = zipped(npy(shape="(3000,)", data=np.random.default_rng(0).bytes(12000)), zipfile.ZIP_DEFLATED)
DAMAGED = {
    "no zip": (b"x" * 100, "not a zip"),
    "text": (zipped(b"hello"), "not in NumPy's format"),
    "objects": (zipped(npy("'|O'")), "holds objects"),
    "structured": (zipped(npy("[('x', '<f4')]")), "header of plain numbers"),
    "unknown dtype": (zipped(npy("'<q9'")), "not understood"),
    "parentheses": (zipped(npy(shape="(" * 5000)), "header of plain numbers"),
    "endless header": (zipped(npy(version=b"\2\0", length=2**31)), "header of plain numbers"),
    "terabytes": (zipped(npy(shape=f"({2**40},)")), "bytes of its shape"),
    "huge axes of nothing": (zipped(npy(shape=f"(0,{10**17},{10**17})", data=b"")), "is not an npz file"),
    "long name": (zipped(npy(), name="x" * 501), "a name of 501 letters"),
    "lzma": (zipped(npy(), zipfile.ZIP_LZMA), "compressed by method 14"),
    "unknown version": (zipped(npy(), place=6, part=b"\x63\0"), "version 9.9"),
    "encrypted": (zipped(npy(), place=8, part=b"\1"), "encrypted"),
    "unknown method": (zipped(npy(), place=10, part=b"\x63\0"), "compressed by method 99"),
    "longer than it is": (zipped(npy(), place=24, part=b"\xff\xff\xff\x7f"), "bytes of its shape"),
    "elsewhere": (zipped(npy(), place=42, part=b"\xff\xff\xff\x7f"), "is not an npz file"),
    "a million members": (
        ENTRY * 10**6 + b"PK\5\6" + bytes(8) + (47 * 10**6).to_bytes(4, "little") + bytes(6),
        "list of members of 47000000 bytes",
    ),
    "damaged stream": (PACKED[:5000] + bytes(3000) + PACKED[8000:], "is not an npz file"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_by_every_reader(tmp_path, damage):
    content, says = DAMAGED[damage]
    path = tmp_path / "vae-oid.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_npz(path, "an npz file", "fetch it again")
    assert str(path) in str(caught.value)
    for reader in (read_codebook, big_vision.open_file):
        with pytest.raises(InputError, match=re.escape(str(path))) as caught:
            reader(path)
        assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_whole_arrays_come_back_and_bombs_do_not(tmp_path, write):
    path, values = tmp_path / "a.npz", np.random.default_rng(0).random((3, 4, 5))
    arrays = {"a/b": values, "F": np.asfortranarray(values), "none": values[:0], "big": values.astype(">f8")}
    write(path, **arrays, zeros=np.zeros(10**6, np.uint8))
    found = read_npz(path, "an npz file", "", only=arrays, most_bytes=10_000)
    assert found.keys() == arrays.keys()
    assert all(array.dtype == arrays[name].dtype for name, array in found.items())
    assert all(np.array_equal(array, arrays[name]) for name, array in found.items())
    with pytest.raises(InputError, match=r"take 100.... bytes, but should take 10000 at most"):
        read_npz(path, "an npz file", "", most_bytes=10_000)


def test_a_checkpoint_that_unpacks_to_a_hundred_times_its_size_is_not_unpacked(checkpoint, monkeypatch):
    config, params, _, path = checkpoint
    arrays = flax_arrays(params, config)
    wide = np.zeros((100_000, config.text.width), np.float32)
    save(path, arrays | {"llm/embedder/input_embedding": wide}, compressed=True)
    monkeypatch.setattr(big_vision, "_mapped", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(InputError, match=r"input_embedding .*unpacks to over 100 times"):
        read(checkpoint)


def test_what_is_written_is_read_back_by_numpy_and_by_us(checkpoint):
    config, params, _, path = checkpoint
    tree = {name: array for name, _, array in leaves(params)}
    file = io.BytesIO()
    big_vision.write_file(file, config, tree.__getitem__, "float32")
    path.write_bytes(file.getvalue())
    expected = flax_arrays(params, config)
    with np.load(path) as found:
        assert set(found.files) == {"params/" + name for name in expected}
        for name, array in expected.items():
            assert np.array_equal(found["params/" + name], array), name
    file = io.BytesIO()
    big_vision.write_file(file, config, lambda name: narrow(tree[name]), "V2")
    path.write_bytes(file.getvalue())
    for (name, _, a), (_, _, b) in zip(leaves(params), leaves(read(checkpoint)[0]), strict=True):
        assert np.array_equal(widen(narrow(a)), b), name
