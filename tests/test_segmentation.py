"""masks.py and conversion/codebook.py: against the twin, torch's layers, and the published file's layout."""

import numpy as np
import pytest
import torch
from support import assert_close, random, tensor

import torch_ref.segmentation as twin
from conversion import codebook
from npgemma import InputError, record, segmentation
from npgemma.axes import suffix
from npgemma.params import map_leaves
from npgemma.porting.bounds import MASKS
from tiny.training.codebook import Codebook, Codes

# Width of the codes' vectors and channels of the inner layers: ours, the published ones, and an odd couple.
SIZES = {"ours": (64, 32), "published": (512, 128), "odd": (20, 24)}
CODES = np.random.default_rng(3).integers(0, codebook.CODES, (3, 16))


def write(path, width, channels, seed=0):
    """Write a file of random arrays; biases too are random."""
    shapes = codebook.layout(width, channels)
    arrays = {name: random(shape, [seed, i], "float32", 0.1) for i, (name, shape) in enumerate(shapes.items())}
    arrays["_vq_vae._embedding"] *= 10
    np.savez(path, **arrays)
    return arrays


@pytest.fixture(params=SIZES)
def file(request, tmp_path):
    width, channels = SIZES[request.param]
    return tmp_path / codebook.FILE, write(tmp_path / codebook.FILE, width, channels), (width, channels)


def test_the_decoder_is_its_twin_and_torchs_layers(file, dtype):
    path, arrays, (width, channels) = file
    params = codebook.read_codebook(path, dtype)
    ours = segmentation.decode_masks(CODES, params)
    assert ours.shape == (3, 64, 64)
    assert_close(ours, twin.decode_masks(tensor(CODES), map_leaves(tensor, params)), MASKS[dtype])
    network = Codebook(channels, width).to(tensor(ours).dtype)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    with torch.no_grad():
        expected = network.decode(network._vq_vae._embedding[tensor(CODES)].reshape(3, 4, 4, width))
    assert_close(expected, ours, MASKS[dtype])


def test_the_layout_is_the_published_files():
    """49 arrays; written by NumPy, a file of this layout has exactly the published one's size."""
    shapes = codebook.layout(512, 128)
    assert len(shapes) == 49
    assert sum(np.prod(shape) for shape in shapes.values()) == 2_116_593
    assert shapes["decoder.8.weight"] == (64, 32, 4, 4)


def test_a_file_of_the_published_layout_has_its_size(tmp_path):
    write(tmp_path / codebook.FILE, 512, 128)
    assert (tmp_path / codebook.FILE).stat().st_size == 8_479_556


def test_every_name_fits_its_array(file):
    path, _, _ = file
    with record() as trace:
        segmentation.decode_masks(CODES, codebook.read_codebook(path))
    assert {suffix(name.rpartition("/")[2]) for name in trace} == {"BM", "BMD", "BUWC", "BUWD", "BYX", "BYXC", "BYXO"}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda arrays: arrays.pop("decoder.4.bias"), "lacks decoder.4.bias"),
        (lambda arrays: arrays.pop("_vq_vae._embedding"), "lacks _vq_vae._embedding"),
        (lambda arrays: arrays.update(more=np.zeros(3)), "holds more"),
        (lambda arrays: arrays.update({"decoder.0.weight": np.zeros((24, 20, 1), "f4")}), "decoder.0.weight should be"),
        (lambda arrays: arrays.update({"decoder.12.bias": np.zeros(2, "f4")}), "decoder.12.bias should be [1]"),
        (lambda arrays: arrays.update({"decoder.12.bias": np.zeros(1, "i4")}), "found [1] of int32"),
        (lambda arrays: arrays["decoder.12.bias"].fill(np.nan), "not finite"),
    ],
)
def test_another_layout_is_one_sentence(tmp_path, spoil, says):
    arrays = write(tmp_path / "spoilt.npz", *SIZES["odd"])
    spoil(arrays)
    np.savez(tmp_path / "spoilt.npz", **arrays)
    with pytest.raises(InputError, match="spoilt") as error:
        codebook.read_codebook(tmp_path / "spoilt.npz")
    assert says in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"nothing at all", None])
def test_a_damaged_file_is_one_sentence(tmp_path, content):
    path = tmp_path / codebook.FILE
    if content is None:
        write(path, *SIZES["odd"])
        content = path.read_bytes()[:5000]
    path.write_bytes(content)
    with pytest.raises(InputError, match="npz"):
        codebook.read_codebook(path)
    with pytest.raises(InputError, match="no mask codebook"):
        codebook.read_codebook(tmp_path / "absent.npz")


def test_codes_follow_what_chooses_them_and_dead_ones_are_revived():
    torch.manual_seed(0)
    codes = Codes(3, 2)
    start = torch.tensor([[0.0, 0.0], [5.0, 5.0], [-90.0, 90.0]])
    codes._embedding.copy_(start)
    codes._ema_w.copy_(start)
    vectors = torch.tensor([[1.0, 0.0], [1.0, 2.0], [4.0, 5.0], [4.0, 5.0]])
    for _ in range(250):
        codes.follow(vectors, codes.nearest(vectors))
    # The means of those that chose them, but for what the moving average still remembers; no one chose the third.
    remembered = 0.99**250 * 2
    assert torch.allclose(codes._embedding, torch.tensor([[1.0, 1.0], [4.0, 5.0], [-90.0, 90.0]]), atol=remembered)
    for _ in range(100):
        codes.follow(vectors, codes.nearest(vectors))
    assert torch.cdist(codes._embedding[2:], vectors).min() < 2


def test_the_gradient_passes_the_choice_of_codes():
    torch.manual_seed(0)
    network = Codebook(channels=8, code_width=16)
    loss, right = network.loss((torch.rand(3, 64, 64) > 0.5).float())
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.encoder.parameters())
    assert 0 <= right["overlap"] <= 1
