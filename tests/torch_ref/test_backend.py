"""torch_ref/backend.py: what is set for one piece of work is restored after it."""

import pytest
import torch

from torch_ref.backend import exact_float32, memory_errors, session


def switches():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(params=[True, False])
def allowed(request):
    """The switches set to one value; they exist without a device too."""
    before = switches()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = request.param
    yield request.param
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_tf32_is_off_during_the_work_and_then_as_before(allowed):
    with exact_float32("cuda"):
        assert switches() == (False, False)
    assert switches() == (allowed, allowed)
    with pytest.raises(ValueError, match="inside"), exact_float32("cuda"):
        raise ValueError("inside")
    assert switches() == (allowed, allowed)


@pytest.mark.parametrize("gradients", [True, False])
def test_only_work_without_gradients_is_in_inference_mode(gradients):
    with session("cpu", gradients):
        assert torch.is_inference_mode_enabled() != gradients
    assert not torch.is_inference_mode_enabled()


def test_too_little_memory_is_pythons_own_error():
    with pytest.raises(MemoryError), memory_errors():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError, match="another"), memory_errors():
        raise RuntimeError("another")
