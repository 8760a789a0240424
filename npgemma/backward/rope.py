"""Rotary position embedding backwards: rotate the other way.

*Next:* ``backward/siglip.py``.
"""

from npgemma.rope import rotate


def rotate_backward(drotated_BTNH, x_BTNH, angle_BTh):
    """Return the gradient of queries or keys before their rotation: the gradient after it, rotated back.

    A rotation is a product with a matrix, and the transpose of that matrix, its inverse, rotates by ``-angle``::

        a' = a cos - b sin        da =  da' cos + db' sin
        b' = b cos + a sin        db = -da' sin + db' cos

    It is linear in ``x_BTNH``, whose values do not matter here.
    """
    dx_BTNH = rotate(drotated_BTNH, -angle_BTh)
    return dx_BTNH
