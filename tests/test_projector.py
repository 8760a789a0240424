"""projector.py against its twin and torch's linear map."""

import torch.nn.functional as F
from support import CONFIGS, assert_close, random, tensor

import conversion
import torch_ref.projector as twin
from npgemma.params import map_leaves
from npgemma.porting.bounds import OPERATION
from npgemma.projector import project

CONFIG = CONFIGS["one key/value head"]


def test_project(dtype):
    p = conversion.random_params(CONFIG, 0, dtype).projector
    features = random((2, CONFIG.image_tokens, CONFIG.vision.width), 1, dtype)
    expected = F.linear(tensor(features), tensor(p.linear).T, tensor(p.bias))
    assert_close(expected, project(features, p), OPERATION[dtype])
    assert_close(expected, twin.project(tensor(features), map_leaves(tensor, p)), OPERATION[dtype])
