"""Rotary position embedding: rotates queries and keys by angles proportional to their token's position.

Attention without a mask does not know the order of tokens: exchange two of them, and each token reads the same values
as before. So position must be put in. Rotation does that in such a way that the dot product of a query with a key
depends on the *difference* of their positions only. Write a pair of channels as a complex number; then the dot product
of two pairs is Re(q conj(k)), and the reason takes two lines (the angle for one position is w)::

    rotated query  q e^(i m w),  rotated key  k e^(i n w)          at positions m and n
    dot product    Re(q e^(i m w) conj(k e^(i n w))) = Re(q conj(k) e^(i (m - n) w))

"Three tokens back" then looks the same everywhere in a text, and nothing has to be learned for each position.

*Next:* ``mask.py``.
"""

import numpy as np


def angles(position_BT, head_width, rope_theta):
    """Return the angle by which each pair of channels is rotated at each position.

    ``angle[h] = position / rope_theta^(h / (H / 2))``: the first pair rotates by one radian a token, later ones slower.

    Parameters
    ----------
    position_BT : int array
        Positions of the tokens, counted from 0.
    head_width : int
        ``H``, even.
    rope_theta : float
        10000 in Gemma.

    Returns
    -------
    angle_BTh : float64 array
        Radians. Kept in float64 whatever the model's dtype: at position 4000 a float32 angle is off by up to 3e-4.

    Notes
    -----
    Why different speeds: a fast pair tells neighbours apart but has come round again after six tokens; a
    slow pair tells far from near. Together they are like the hands of a clock. ``rope_theta`` sets the slowest hand: at
    H = 256 it takes 2 pi 10000^(127/128), about 58000 tokens, to come round, far more than the 8192 tokens that Gemma
    was made for.

    Hugging Face counts positions from 1, big_vision from 0. Scores depend on differences only, so both are right.

    References
    ----------
    Su et al., arXiv 2104.09864, section 3.2.2 (their ``theta_i``, with i from 1, is our ``rope_theta^(-h / (H / 2))``).

    Examples
    --------
    >>> import numpy as np
    >>> angles(np.array([[0, 1, 2]]), head_width=4, rope_theta=10000.0)[0]
    array([[0.  , 0.  ],
           [1.  , 0.01],
           [2.  , 0.02]])
    """
    half = head_width // 2
    frequency_h = rope_theta ** (-np.arange(half, dtype=np.float64) / half)
    angle_BTh = position_BT[:, :, None] * frequency_h
    return angle_BTh


def rotate(x_BTNH, angle_BTh):
    """Rotate channel h of every head together with channel h + H / 2 by its token's angle.

    ``(a, b) -> (a cos - b sin, b cos + a sin)``, where ``a`` is the first half of the channels and ``b`` the second.

    Parameters
    ----------
    x_BTNH : array
        Queries, or keys (then N is the number of key/value heads).
    angle_BTh : float64 array
        Radians, from `angles`.

    Returns
    -------
    rotated_BTNH : array

    Notes
    -----
    The paper pairs neighbouring channels (0 with 1, 2 with 3). Gemma's weights are trained for halves (0 with H / 2,
    1 with H / 2 + 1); pairing neighbours gives wrong answers and no error.

    Examples
    --------
    A query and a key: at positions 3 and 1, and at 12 and 10, their score is the same; at 3 and 0 it is another.

    >>> import numpy as np
    >>> q, k = np.array([1.0, 2, 3, 4]).reshape(1, 1, 1, 4), np.array([4.0, 1, 2, 3]).reshape(1, 1, 1, 4)
    >>> def at(x, position):
    ...     return rotate(x, angles(np.array([[position]]), 4, 10000.0))
    >>> [round(float((at(q, m) * at(k, n)).sum()), 3) for m, n in ((3, 1), (12, 10), (3, 0))]
    [0.783, 0.783, 2.743]
    """
    first_BTNh, second_BTNh = np.split(x_BTNH, 2, axis=-1)
    # All heads rotate alike: an axis of length one stands for them.
    cos = np.cos(angle_BTh)[:, :, None].astype(x_BTNH.dtype)
    sin = np.sin(angle_BTh)[:, :, None].astype(x_BTNH.dtype)
    halves = [first_BTNh * cos - second_BTNh * sin, second_BTNh * cos + first_BTNh * sin]
    rotated_BTNH = np.concatenate(halves, axis=-1)
    return rotated_BTNH
