"""rope.py against its twin, and against rotation as multiplication of complex numbers."""

import numpy as np
import torch
from support import assert_close, random, tensor

import torch_ref.rope as twin
from npgemma import rope
from npgemma.porting.bounds import OPERATION

B, T, N, H = 2, 5, 3, 8
POSITION = np.array([[0, 1, 2, 3, 7], [4, 5, 900, 901, 8000]])


def test_angles():
    expected = torch.outer(tensor(POSITION).flatten().double(), 10000.0 ** -(torch.arange(0, H, 2).double() / H))
    expected = expected.reshape(B, T, H // 2)
    assert_close(expected, rope.angles(POSITION, H, 10000.0), OPERATION["float64"])
    assert_close(expected, twin.angles(tensor(POSITION), H, 10000.0), OPERATION["float64"])


def test_rotation_is_complex_multiplication(dtype):
    x, angle = random((B, T, N, H), 0, dtype), rope.angles(POSITION, H, 10000.0)
    halves = torch.complex(*tensor(x.astype("float64")).chunk(2, dim=-1))
    turned = halves * torch.polar(torch.ones(B, T, 1, H // 2).double(), tensor(angle)[:, :, None])
    expected = torch.cat([turned.real, turned.imag], dim=-1).numpy().astype(dtype)
    assert_close(expected, rope.rotate(x, angle), OPERATION[dtype])
    assert_close(expected, twin.rotate(tensor(x), tensor(angle)), OPERATION[dtype])


def test_scores_depend_on_distance_only():
    q, k = random((1, 1, 1, H), 0), random((1, 1, 1, H), 1)

    def score(query_position, key_position):
        turned = [
            rope.rotate(x, rope.angles(np.array([[position]]), H, 10000.0))
            for x, position in ((q, query_position), (k, key_position))
        ]
        return float((turned[0] * turned[1]).sum())

    assert abs(score(9, 4) - score(105, 100)) < 1e-12
    assert abs(score(9, 4) - score(9, 5)) > 1e-3
