"""ops.py against its twin and against torch's primitives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import assert_close, random, tensor

import torch_ref.ops as twin
from npgemma import ops
from npgemma.fast.bfloat16 import BFloat16Weight, narrow
from npgemma.fast.int8 import quantize
from npgemma.params import ConvolutionParams, LayerNormParams
from npgemma.porting.bounds import OPERATION

SHAPE = (2, 5, 7)


def test_softmax(dtype):
    x = random(SHAPE, 0, dtype, scale=5)
    x[0, 0, :3] = -np.inf
    expected = F.softmax(tensor(x), dim=-1)
    assert_close(expected, ops.softmax(x), OPERATION[dtype])
    assert_close(expected, twin.softmax(tensor(x)), OPERATION[dtype])
    assert (ops.softmax(x)[0, 0, :3] == 0).all()


def test_softmax_does_not_overflow(dtype):
    x = np.array([[1000.0, 999.0, -1000.0]], dtype=dtype)
    assert_close(F.softmax(tensor(x), dim=-1), ops.softmax(x), OPERATION[dtype])


def test_gelu(dtype):
    x = random(SHAPE, 1, dtype, scale=3)
    expected = F.gelu(tensor(x), approximate="tanh")
    assert_close(expected, ops.gelu(x), OPERATION[dtype])
    assert_close(expected, twin.gelu(tensor(x)), OPERATION[dtype])


def test_soft_cap_is_a_squashed_line(dtype):
    """Torch has no such primitive: softsign and tanh are its kin. Against tanh by its exponentials, in long double."""
    x, cap = random((5, 60), 0, dtype, scale=20), 7.0
    wide = x.astype(np.longdouble) / cap
    expected = (cap * -np.expm1(-2 * wide) / (1 + np.exp(-2 * wide))).astype(dtype)
    assert_close(expected, ops.soft_cap(x, cap), OPERATION[dtype])
    assert_close(expected, twin.soft_cap(tensor(x), cap), OPERATION[dtype])
    assert np.abs(ops.soft_cap(1e4 * x, cap)).max() <= cap
    small = random(9, 1, dtype, scale=1e-3)
    assert_close(small, ops.soft_cap(small, cap), 1e-6)


def test_gelu_is_not_the_exact_form():
    x = random(SHAPE, 1)
    assert np.abs(ops.gelu(x) - F.gelu(tensor(x)).numpy()).max() > 1e-4


def test_relu(dtype):
    x = random(SHAPE, 1, dtype)
    assert_close(F.relu(tensor(x)), ops.relu(x), 0)
    assert_close(F.relu(tensor(x)), twin.relu(tensor(x)), 0)


@pytest.mark.parametrize("side", [(1, 1), (3, 3), (3, 5)])
def test_convolve(dtype, side):
    x = random((2, 4, 7, 3), 0, dtype)
    p = ConvolutionParams(random((3, *side, 5), 1, dtype), random(5, 2, dtype))
    kernel = tensor(p.kernel.transpose(3, 0, 1, 2))
    expected = F.conv2d(tensor(x.transpose(0, 3, 1, 2)), kernel, tensor(p.bias), padding="same").permute(0, 2, 3, 1)
    assert_close(expected, ops.convolve(x, p), OPERATION[dtype])
    assert_close(
        expected, twin.convolve(tensor(x), ConvolutionParams(tensor(p.kernel), tensor(p.bias))), OPERATION[dtype]
    )


def test_convolve_transposed(dtype):
    x = random((2, 4, 7, 3), 0, dtype)
    p = ConvolutionParams(random((3, 4, 4, 5), 1, dtype), random(5, 2, dtype))
    layer = torch.nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1, dtype=tensor(x).dtype)
    layer.load_state_dict({"weight": tensor(p.kernel.transpose(0, 3, 1, 2)), "bias": tensor(p.bias)})
    expected = layer(tensor(x.transpose(0, 3, 1, 2))).detach().permute(0, 2, 3, 1)
    assert_close(expected, ops.convolve_transposed(x, p), OPERATION[dtype])
    assert_close(
        expected,
        twin.convolve_transposed(tensor(x), ConvolutionParams(tensor(p.kernel), tensor(p.bias))),
        OPERATION[dtype],
    )


@pytest.mark.parametrize("scale", [1.0, 1e-3])  # at 1e-3 the epsilon is as large as the variance
def test_layer_norm(dtype, scale):
    x = random(SHAPE, 2, dtype, scale)
    p = LayerNormParams(random(7, 3, dtype) + 1, random(7, 4, dtype))
    tensors = LayerNormParams(tensor(p.scale), tensor(p.bias))
    expected = F.layer_norm(tensor(x), (7,), tensors.scale, tensors.bias, 1e-6)
    assert_close(expected, ops.layer_norm(x, p, 1e-6), OPERATION[dtype])
    assert_close(expected, twin.layer_norm(tensor(x), tensors, 1e-6), OPERATION[dtype])


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_rms_norm(dtype, scale):
    x, gain = random(SHAPE, 5, dtype, scale), random(7, 6, dtype)
    expected = F.rms_norm(tensor(x), (7,), 1 + tensor(gain), 1e-6)
    assert_close(expected, ops.rms_norm(x, gain, 1e-6), OPERATION[dtype])
    assert_close(expected, twin.rms_norm(tensor(x), tensor(gain), 1e-6), OPERATION[dtype])


@pytest.mark.parametrize(
    ("formula", "shapes"),
    [
        ("BTD,DNH->BTNH", [(2, 5, 7), (7, 3, 4)]),
        ("BTNH,NHD->BTD", [(2, 5, 3, 4), (3, 4, 7)]),
        ("BTKGH,BSKH->BKGTS", [(2, 5, 3, 2, 4), (2, 6, 3, 4)]),
        ("BKGTS,BSKH->BTKGH", [(2, 3, 2, 5, 6), (2, 6, 3, 4)]),
        ("BTCyx,CyxD->BTD", [(2, 5, 3, 4, 6), (3, 4, 6, 7)]),
        ("BTD,VD->BTV", [(2, 5, 7), (9, 7)]),
        ("BYXCyx,CyxO->BYXO", [(2, 5, 7, 3, 4, 6), (3, 4, 6, 8)]),
        ("BYXC,CyxO->BYXyxO", [(2, 5, 7, 3), (3, 4, 6, 8)]),
    ],
)
def test_every_formula_in_use(formula, shapes, dtype):
    arrays = [random(shape, i, dtype) for i, shape in enumerate(shapes)]
    plain = np.einsum(formula, *[x.astype("float64") for x in arrays]).astype(dtype)
    assert_close(plain, ops.einsum(formula, *arrays), OPERATION[dtype])
    assert_close(plain, twin.einsum(formula, *map(tensor, arrays)), OPERATION[dtype])


# Every kind of weight, from float32 numbers that a checkpoint stores with what comes out first.
KINDS = {
    "float32": (ops, lambda stored, view: view(stored)),
    "float64": (ops, lambda stored, view: view(stored.astype("float64"))),
    "copied": (ops, lambda stored, view: np.array(view(stored))),
    "bfloat16": (ops, lambda stored, view: BFloat16Weight(view(narrow(stored)))),
    "int8": (ops, quantize),
    "twin": (twin, lambda stored, view: tensor(view(stored))),
    "twin in bfloat16": (twin, lambda stored, view: tensor(view(stored)).bfloat16()),
}


DISAGREEING = [
    ("BTCyx,CyxD->BTD", (2, 5, 4, 4, 3), (3, 4, 4, 7), "axis C is 4 in the first operand and 3 in the second"),
    ("BTNH,NHD->BTD", (2, 5, 4, 6), (6, 4, 7), "axis N is 4 in the first operand and 6 in the second"),
    ("BTD,DF->BTF", (2, 5, 6), (1, 4), "axis D is 6 in the first operand and 1 in the second"),
    ("BTD,DNH->BTNH", (2, 5, 6), (6, 8), "the second operand should have 3 axes, found 2"),
    ("BTD,DF->BTF", (5, 6), (6, 4), "the first operand should have 3 axes, found 2"),
    ("BSKH,BTKGH->BKGTS", (2, 5, 3, 4), (2, 6, 4, 2, 3), "axis K is 3 in the first operand and 4 in the second"),
    ("BND,BMD->BNM", (2, 3, 4), (3, 3, 4), "axis B is 2 in the first operand and 3 in the second"),
    ("TT,T->T", (3, 4), (3,), "axis T is 3 in the first operand and 4 in the first"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_einsum_refuses_axes_that_disagree(kind):
    """Products of matrices would give numbers where two sizes agree only when multiplied."""
    module, hold = KINDS[kind]
    for formula, x_shape, weight_shape, message in DISAGREEING:
        stored = random((weight_shape[-1], *weight_shape[:-1]), 1, "float32")
        weight = hold(stored, lambda array: np.moveaxis(array, 0, -1))
        x = random(x_shape, 0, "float32")
        with pytest.raises(ValueError, match=f"^einsum {formula}: {message}$"):
            module.einsum(formula, tensor(x).to(weight.dtype) if module is twin else x, weight)


@pytest.mark.parametrize("module", [ops, twin])
def test_einsum_refuses_operands_that_the_formula_does_not_name(module):
    with pytest.raises(ValueError, match=r"^einsum BTD,DF->BTF: expected 2 operands, found 1$"):
        module.einsum("BTD,DF->BTF", tensor(random((2, 5, 6), 0)))


def test_twin_calculates_norms_of_bfloat16_in_float32():
    x, gain = tensor(random((5, 512), 0)).bfloat16(), tensor(random(512, 1)).bfloat16()
    expected = F.rms_norm(x.float(), (512,), 1 + gain.float(), 1e-6).bfloat16()
    assert torch.equal(twin.rms_norm(x, gain, 1e-6), expected)
    assert twin.softmax(x).dtype == torch.bfloat16
