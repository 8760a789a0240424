"""Mistakes in the vision tower."""

import math
from dataclasses import replace

from npgemma.porting.mistakes.injection import (
    LeftOut,
    Mistake,
    leaving_out,
    library_of,
    like,
    rounded_to_bfloat16,
    weight_to_bfloat16,
    with_weights,
    without,
)
from npgemma.porting.mistakes.operations import exact_gelu, quick_gelu
from npgemma.probe.following import enclosing


def _grid_transposed(module, right):
    def wrong(patch_BTCyx, p):
        side = math.isqrt(patch_BTCyx.shape[1])
        order = [row * side + column for column in range(side) for row in range(side)]
        return right(patch_BTCyx[:, order], p)

    return wrong


def _patch_transposed(module, right):
    return lambda patch_BTCyx, p: right(patch_BTCyx.swapaxes(-1, -2), p)


def _image_transposed(module, right):
    return lambda pixels_BYXC, p, config: right(pixels_BYXC.swapaxes(1, 2), p, config)


def _embedding(**weights):
    """Return the changes that embed patches with other weights."""
    return ({"siglip.embed_patches": with_weights(1, **weights)},)


def _epsilon(value):
    return {"siglip.layer_norm": lambda module, right: lambda x, p, epsilon: right(x, p, value)}


def _causal(module, right):
    def wrong(q_BTNH, k_BSKH, v_BSKH):
        (B, T), S = q_BTNH.shape[:2], k_BSKH.shape[1]
        mask_BTS = library_of(q_BTNH).tril(like(q_BTNH, [[[1.0] * S] * T] * B)) > 0
        return right(q_BTNH, k_BSKH, v_BSKH, mask_BTS)

    return wrong


def _fresh_norm(module, right):
    return lambda x, p, epsilon: right(x, replace(p, scale=p.scale * 0 + 1, bias=p.bias * 0), epsilon)


def _last_left_out(module, right):
    def wrong(x_BTD, p, config):
        is_last = p is enclosing("p").blocks[-1]
        return x_BTD if is_last else right(x_BTD, p, config)

    return wrong


def _unscaled(module, right):
    return lambda q_BTNH, *others: right(q_BTNH * math.sqrt(q_BTNH.shape[-1]), *others)


_norm_left_out = {"siglip.encode": with_weights(1, norm=lambda p: LeftOut()), "siglip.layer_norm": leaving_out}
_ENCODE = "encode_image.0/encode.0/"
_PATCHES = _ENCODE + "embed_patches.0/"
_EMBEDDED = _PATCHES + "embedded_BTD"
MISTAKES = (
    Mistake(
        "patch-rows-columns-swapped",
        "Rows and columns are exchanged: of the grid of patches, of the pixels in a patch, or of the whole image.",
        "reshapes that take columns for rows, and images in the order (width, height)",
        _ENCODE + "*",
        (
            {"siglip.embed_patches": _grid_transposed},
            {"siglip.embed_patches": _patch_transposed},
            {"siglip.encode": _image_transposed},
        ),
        "the image is its own mirror image along its diagonal",
    ),
    Mistake(
        "patch-weights-bfloat16",
        "The matrix that embeds patches is rounded to bfloat16.",
        "models that are cast as a whole (OpenTau issue 482)",
        _PATCHES + "projected_BTD",
        _embedding(patch_embedding=lambda p: weight_to_bfloat16(p.patch_embedding)),
        "the checkpoint's matrix is bfloat16 already",
    ),
    Mistake(
        "no-patch-bias",
        "The bias of the patches' embedding is not added.",
        "convolutions that are made without a bias",
        _PATCHES + "projected_BTD",
        ({"siglip.embed_patches": without("patch_embedding_bias")},),
    ),
    Mistake(
        "no-vision-biases",
        "Linear layers of the vision tower have no bias: the outputs of attention and MLP, or all.",
        "layers that are made as the decoder's, which has no biases",
        _ENCODE + "block.0/self_attention.0/*",
        (
            {"siglip.self_attention": without("o_bias"), "siglip.mlp": without("down_bias")},
            {
                "siglip.self_attention": without("q_bias", "k_bias", "v_bias", "o_bias"),
                "siglip.mlp": without("up_bias", "down_bias"),
            },
        ),
    ),
    Mistake(
        "no-vision-positions",
        "The learned position embedding of the patches is not added.",
        "loaders that pass over names they do not know (hkproj issues 6 and 9)",
        _EMBEDDED,
        _embedding(position_embedding=lambda p: p.position_embedding * 0),
    ),
    Mistake(
        "vision-positions-bfloat16",
        "The position embedding of the patches is rounded to bfloat16.",
        "models that are cast as a whole (OpenTau issue 482)",
        _EMBEDDED,
        _embedding(position_embedding=lambda p: rounded_to_bfloat16(p.position_embedding)),
        "the checkpoint's position embedding is bfloat16 already",
    ),
    Mistake(
        "vision-epsilon",
        "LayerNorm has another epsilon than 1e-6: torch's own default is 1e-5, other vision transformers have 1e-12.",
        "torch.nn.LayerNorm without eps=1e-6",
        _ENCODE + "block.0/self_attention.0/x_BTD",
        (_epsilon(1e-5), _epsilon(1e-12)),
    ),
    Mistake(
        "vision-exact-gelu",
        "The vision tower's GELU is the exact one, with the error function, instead of the tanh form.",
        "torch.nn.GELU without approximate='tanh'",
        _ENCODE + "block.0/mlp.0/hidden_BTF",
        ({"siglip.gelu": lambda module, right: exact_gelu},),
    ),
    Mistake(
        "vision-quick-gelu",
        "The vision tower's GELU is the sigmoid form, x * sigmoid(1.702 x), instead of the tanh form.",
        "vision towers as CLIP has them (quick_gelu)",
        _ENCODE + "block.0/mlp.0/hidden_BTF",
        ({"siglip.gelu": lambda module, right: quick_gelu},),
    ),
    Mistake(
        "vision-norms-not-loaded",
        "The norms of the vision tower have no weights of the checkpoint: scales are 1, biases 0.",
        "loaders that pass over names they do not know (strict=False)",
        _ENCODE + "block.0/self_attention.0/x_BTD",
        ({"siglip.layer_norm": _fresh_norm},),
    ),
    Mistake(
        "vision-scores-unscaled",
        "Scores of the vision tower are not divided by the square root of the head width.",
        "queries thought to be scaled already",
        _ENCODE + "block.0/self_attention.0/attend.0/q_BTNH",
        ({"siglip.attend": _unscaled},),
    ),
    Mistake(
        "no-post-layernorm",
        "The norm after the last block of the vision tower is left out.",
        "ports that take the last hidden state, as one does of CLIP",
        _ENCODE + "features_BTD",
        (_norm_left_out,),
    ),
    Mistake(
        "vision-last-block-missing",
        "The last block of the vision tower is left out; the norm after it may be as well.",
        "ports that take the hidden state before the last, as LLaVA does of CLIP",
        _ENCODE + "features_BTD",
        (
            {"siglip.block": _last_left_out},
            {"siglip.block": _last_left_out, **_norm_left_out},
        ),
    ),
    Mistake(
        "vision-causal",
        "Patches see only the patches before them.",
        "one attention for both towers, causal by default",
        _ENCODE + "block.0/self_attention.0/attend.0/masked_BKGTS",
        ({"siglip.attend": _causal},),
    ),
)
