"""Mistakes where the image meets the text: in the projector, the image tokens, and embedded text."""

import math

import numpy as np

from npgemma.porting.mistakes.injection import Mistake, image_tokens, in_decoders, rounded_to_bfloat16, without
from npgemma.probe.following import enclosing


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


_IMAGE = "encode_image.0/image_BPD"
MISTAKES = (
    Mistake(
        "no-projector-bias",
        "The projector's bias is not added.",
        "conversions that lose it (llama.cpp issue 22528)",
        _IMAGE,
        ({"paligemma.project": without("bias")},),
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
