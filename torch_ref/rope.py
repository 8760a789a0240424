"""The twin of ``npgemma/rope.py``, which explains what both do."""

import torch


def angles(position_BT, head_width, rope_theta):
    """Return the angle by which each pair of channels is rotated at each position."""
    half = head_width // 2
    frequency_h = rope_theta ** (-torch.arange(half, dtype=torch.float64, device=position_BT.device) / half)
    angle_BTh = position_BT[:, :, None] * frequency_h
    return angle_BTh


def rotate(x_BTNH, angle_BTh):
    """Rotate channel h of every head together with channel h + H / 2 by its token's angle."""
    first_BTNh, second_BTNh = torch.chunk(x_BTNH, 2, dim=-1)
    # All heads rotate alike: an axis of length one stands for them.
    cos = torch.cos(angle_BTh)[:, :, None].to(x_BTNH.dtype)
    sin = torch.sin(angle_BTh)[:, :, None].to(x_BTNH.dtype)
    halves = [first_BTNh * cos - second_BTNh * sin, second_BTNh * cos + first_BTNh * sin]
    rotated_BTNH = torch.cat(halves, dim=-1)
    return rotated_BTNH
