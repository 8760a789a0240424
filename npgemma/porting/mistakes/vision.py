"""Mistakes in the vision tower, and where its tokens meet the text."""

import math
from dataclasses import replace

import numpy as np

from npgemma.porting.mistakes.injection import (
    LeftOut,
    Mistake,
    image_tokens,
    in_decoders,
    leaving_out,
    library_of,
    like,
    rounded_to_bfloat16,
    weight_to_bfloat16,
    with_weights,
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


def _without(*biases):
    """Return the change that makes biases of a function's weights zero."""
    return with_weights(1, **{name: lambda p, name=name: getattr(p, name) * 0 for name in biases})


def _fresh_norm(module, right):
    return lambda x, p, epsilon: right(x, replace(p, scale=p.scale * 0 + 1, bias=p.bias * 0), epsilon)


def _unscaled(module, right):
    return lambda q_BTNH, *others: right(q_BTNH * math.sqrt(q_BTNH.shape[-1]), *others)


def _not_replaced(power):
    """Return the change that leaves the embedding of ``<image>``, times a power of its factor, in the image's rows."""

    def wrong(module, right):
        def call(features_BPE, p):
            image_BPD, all_params, config = right(features_BPE, p), enclosing("p"), enclosing("config")
            row_D = all_params.text.embedding[config.image_token]
            return 0 * image_BPD + row_D * math.sqrt(len(row_D)) ** power

        return call

    return {"paligemma.project": wrong}


def _scaled(power):
    """Return the change that multiplies the image tokens by a power of the square root of the decoder's width."""

    def wrong(module, right):
        def call(features_BPE, p):
            image_BPD = right(features_BPE, p)
            return image_BPD * math.sqrt(image_BPD.shape[-1]) ** power

        return call

    return ({"paligemma.project": wrong},)


def _text_scaled(factor):
    """Return the change that multiplies embedded text by ``factor(width)``."""

    def wrong(module, right):
        def call(ids_BT, p):
            text_BTD = right(ids_BT, p)
            return text_BTD * factor(text_BTD.shape[-1])

        return call

    return (in_decoders("embed_tokens", wrong),)


def _rounding_of_root(width):
    root = math.sqrt(width)
    return float(rounded_to_bfloat16(np.array(root))) / root


def _text_first(module, right):
    def wrong(x_BTD, prefix_BS, valid_BS, *others):
        new, image = x_BTD.shape[1], image_tokens()
        if image is None:
            return right(x_BTD, prefix_BS, valid_BS, *others)
        order = [*range(image, new), *range(image)]
        return right(x_BTD[:, order], prefix_BS[:, order], valid_BS[:, order], *others)

    return wrong


_norm_left_out = {"siglip.encode": with_weights(1, norm=lambda p: LeftOut()), "siglip.layer_norm": leaving_out}
_last_block_missing = with_weights(1, blocks=lambda p: p.blocks[:-1])
_last_two_missing = with_weights(1, blocks=lambda p: p.blocks[:-1], norm=lambda p: LeftOut())
_ENCODE = "encode_image.0/encode.0/"
_PATCHES = _ENCODE + "embed_patches.0/"
_IMAGE = "encode_image.0/image_BPD"
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
        ({"siglip.embed_patches": _without("patch_embedding_bias")},),
    ),
    Mistake(
        "no-vision-biases",
        "Linear layers of the vision tower have no bias: the outputs of attention and MLP, or all.",
        "layers that are made as the decoder's, which has no biases",
        _ENCODE + "block.0/self_attention.0/*",
        (
            {"siglip.self_attention": _without("o_bias"), "siglip.mlp": _without("down_bias")},
            {
                "siglip.self_attention": _without("q_bias", "k_bias", "v_bias", "o_bias"),
                "siglip.mlp": _without("up_bias", "down_bias"),
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
            {"siglip.encode": _last_block_missing},
            {"siglip.encode": _last_two_missing, "siglip.layer_norm": leaving_out},
        ),
    ),
    Mistake(
        "vision-causal",
        "Patches see only the patches before them.",
        "one attention for both towers, causal by default",
        _ENCODE + "block.0/self_attention.0/attend.0/masked_BKGTS",
        ({"siglip.attend": _causal},),
    ),
    Mistake(
        "no-projector-bias",
        "The projector's bias is not added.",
        "conversions that lose it (llama.cpp issue 22528)",
        _IMAGE,
        ({"paligemma.project": _without("bias")},),
    ),
    Mistake(
        "image-tokens-not-replaced",
        "The rows of the image hold the embedding of the token <image>, and nothing of the image.",
        "ports that drop the image's embeddings, or look for them under another id",
        _IMAGE,
        (_not_replaced(1), _not_replaced(0)),
    ),
    Mistake(
        "image-scaled",
        "Image tokens are multiplied by the square root of the width, as text is.",
        "ports that scale the joined sequence (transformers issue 37117, hkproj issue 13, openpi issue 769)",
        _IMAGE,
        _scaled(1),
    ),
    Mistake(
        "image-divided",
        "Image tokens are divided by the square root of the width, and never multiplied again.",
        "vLLM for five months (issues 36787 to 52692), after transformers moved the factor in pull request 44432",
        _IMAGE,
        _scaled(-1),
    ),
    Mistake(
        "text-unscaled",
        "Embedded text is not multiplied by the square root of the width.",
        "ports of models that have no such factor (litgpt issue 1031)",
        "prefill.0/x_BSD",
        _text_scaled(lambda width: 1 / math.sqrt(width)),
    ),
    Mistake(
        "text-scaled-twice",
        "Embedded text is multiplied by the square root of the width twice.",
        "ports that scale what the embedding layer has scaled (lerobot issues 3249 and 3603, sglang issue 33367)",
        "prefill.0/x_BSD",
        _text_scaled(math.sqrt),
    ),
    Mistake(
        "embedding-scale-bfloat16",
        "The square root of the width, by which embedded text is multiplied, is rounded to bfloat16.",
        "code that makes it a number of the activations' dtype, as early Hugging Face did (litgpt issue 1031)",
        "prefill.0/x_BSD",
        _text_scaled(_rounding_of_root),
        "the square root of this width is exact in bfloat16",
    ),
    Mistake(
        "text-before-image",
        "The prompt stands before the image tokens.",
        "ports that append the image to the text",
        "prefill.0/run_blocks.0/x_BTD",
        (in_decoders("run_blocks", _text_first),),
    ),
)
