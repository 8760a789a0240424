"""Mistakes in converting a checkpoint: weights in another order, made where the weight is used."""

from npgemma.porting.mistakes.injection import Mistake, in_decoders, with_weights


def _channels_last(module, right):
    """Multiply pixels in the order (height, width, channel) by a matrix in the order (channel, height, width)."""

    def wrong(patch_BTCyx, p):
        B, T, C, y, x = patch_BTCyx.shape
        return right(patch_BTCyx.swapaxes(-3, -2).swapaxes(-2, -1).reshape(B, T, C, y, x), p)

    return wrong


def _channels_first(module, right):
    """Multiply pixels in the order (channel, height, width) by a matrix in the order (height, width, channel)."""

    def wrong(patch_BTCyx, p):
        B, T, C, y, x = patch_BTCyx.shape
        return right(patch_BTCyx.reshape(B, T, y, x, C).swapaxes(-2, -1).swapaxes(-3, -2), p)

    return wrong


def heads_last(x_BTNH):
    """Lay out heads and channels as (H, N), and read them as (N, H)."""
    return x_BTNH.swapaxes(2, 3).reshape(x_BTNH.shape)


def heads_first(x_BTNH):
    """Read what is laid out as (N, H) as (H, N): the inverse of `heads_last`."""
    B, T, N, H = x_BTNH.shape
    return x_BTNH.reshape(B, T, H, N).swapaxes(2, 3)


def _mixed(order):
    """Return the change that hands the output projection another order of channels."""

    def wrong(module, right):
        return lambda q_BTNH, *others: order(right(q_BTNH, *others))

    return wrong


def _queries(order):
    """Return the change that gives the query heads another order: ``order(q_BTNH, K)``."""

    def wrong(module, right):
        def call(q_BTNH, k_BSKH, *others):
            return right(order(q_BTNH, k_BSKH.shape[2]), k_BSKH, *others)

        return call

    return in_decoders("attend", wrong)


def _shared_last(q_BTNH, K):
    """Order query heads by their place among those that share a key/value head first."""
    N = q_BTNH.shape[2]
    return q_BTNH[:, :, [n for first in range(N // K) for n in range(first, N, N // K)]]


def _shared_first(q_BTNH, K):
    """Order query heads the other way round: the inverse of `_shared_last`."""
    N = q_BTNH.shape[2]
    return q_BTNH[:, :, [n for shared in range(K) for n in range(shared, N, K)]]


_norms_exchanged = with_weights(3, attn_out_norm=lambda p: p.mlp_norm, mlp_norm=lambda p: p.attn_out_norm)


_ATTENTION = "*/run_blocks.0/block.0/grouped_query_attention.0/"
MISTAKES = (
    Mistake(
        "patch-kernel-order",
        "The matrix that embeds patches has its numbers as height, width, channel, read as channel, height, width; or "
        "the other way round.",
        "big_vision's kernels and the hub's differ in this",
        "encode_image.0/encode.0/embed_patches.0/*",
        ({"siglip.embed_patches": _channels_first}, {"siglip.embed_patches": _channels_last}),
    ),
    Mistake(
        "output-projection-head-order",
        "Attention's output matrix takes heads and channels in the wrong order: (H, N) for (N, H).",
        "big_vision has the matrix as (N, H, D), the hub as (D, N H)",
        _ATTENTION + "mixed_BTNH",
        (in_decoders("attend", _mixed(heads_last)), in_decoders("attend", _mixed(heads_first))),
    ),
    Mistake(
        "norms-shifted",
        "PaliGemma 2's norms are mapped as Gemma's: post_attention_layernorm stands before the MLP.",
        "conversions of PaliGemma 1, in which that name means the norm before the MLP",
        "*/run_blocks.0/block.0/mid_BTD",
        ({"gemma2.block": _norms_exchanged},),
    ),
    Mistake(
        "query-heads-order",
        "Query heads have the wrong order: (H, N) for (N, H), or those that share keys and values are not neighbours.",
        "permutations for another layout of heads, applied twice or not at all",
        _ATTENTION + "attend.0/q_BTNH",
        (
            _queries(lambda q_BTNH, K: heads_last(q_BTNH)),
            _queries(lambda q_BTNH, K: heads_first(q_BTNH)),
            _queries(_shared_last),
            _queries(_shared_first),
        ),
    ),
)
