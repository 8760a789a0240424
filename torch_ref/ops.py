"""The twin of ``npgemma/ops.py``, which explains what both do.

Where the dtype is bfloat16, norms and softmax still calculate in float32, as Hugging Face's and big_vision's do.
"""

import math

import torch
import torch.nn.functional as F

from npgemma.fast.products import check_axes, layout


def at_least_float32(x):
    """Return the array in float32 if its dtype is narrower, otherwise as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def einsum(formula, *operands):
    """Multiply, then sum over the axes that the result does not have."""
    check_axes(formula, *[operand.shape for operand in operands])
    found = layout(formula)
    if not found:
        return torch.einsum(formula, *operands)
    # A product with a weight is torch's linear layer, which on the CPU reads the weights faster than its einsum.
    (kept, order), (x, weight) = found, operands
    out_axes = [weight.shape[axis] for axis in order[: weight.ndim - (x.ndim - kept)]]
    weight_NK = weight.permute(order).reshape(math.prod(out_axes), -1)
    return F.linear(x.reshape(*x.shape[:kept], -1), weight_NK).reshape(*x.shape[:kept], *out_axes)


def softmax(x):
    """Softmax: map numbers to positive weights that sum to one along the last axis: ``exp(x) / sum(exp(x))``."""
    return torch.softmax(x, dim=-1, dtype=at_least_float32(x).dtype).to(x.dtype)


def relu(x):
    """Rectified linear unit: ``max(x, 0)``."""
    return F.relu(x)


def gelu(x):
    """Gaussian error linear unit, in the tanh form that both towers were trained with."""
    return F.gelu(x, approximate="tanh")


def soft_cap(x, cap):
    """Soft-cap: keep numbers between -cap and cap, and small ones almost as they are: ``cap * tanh(x / cap)``."""
    return cap * torch.tanh(x / cap)


def layer_norm(x, p, epsilon):
    """LayerNorm: shift and scale every token to mean 0 and variance 1, then apply a learned scale and bias."""
    return F.layer_norm(x, x.shape[-1:], p.scale, p.bias, epsilon)


def rms_norm(x, scale, epsilon):
    """RMSNorm: scale every token to a root mean square of 1, then multiply each channel by a learned gain."""
    wide = at_least_float32(x)
    return F.rms_norm(wide, x.shape[-1:], 1 + scale.to(wide.dtype), epsilon).to(x.dtype)


def convolve(x, p):
    """Convolution with zero padding, so that the grid keeps its size."""
    return F.conv2d(x.permute(0, 3, 1, 2), p.kernel.permute(3, 0, 1, 2), p.bias, padding="same").permute(0, 2, 3, 1)


def convolve_transposed(x, p):
    """Transposed convolution: kernel 4, stride 2, padding 1."""
    kernel = p.kernel.permute(0, 3, 1, 2)
    return F.conv_transpose2d(x.permute(0, 3, 1, 2), kernel, p.bias, stride=2, padding=1).permute(0, 2, 3, 1)
