"""Mistakes in what Gemma 2 adds to Gemma."""

import dataclasses
import math

from npgemma.porting.mistakes.injection import LeftOut, Mistake, leaving_out, with_weights


def _with_config(**wrong):
    """Return the change that gives a function another configuration, which is its last argument."""

    def change(module, right):
        return lambda *arguments: right(*arguments[:-1], dataclasses.replace(arguments[-1], **wrong))

    return change


def _uncapped(module, right):
    return lambda x, cap: x if cap == math.inf else right(x, cap)


_without_post_norms = with_weights(3, attn_out_norm=lambda p: LeftOut(), mlp_out_norm=lambda p: LeftOut())


def _window(width):
    """Return the change that lets the window be ``width(window)`` keys wide."""

    def wrong(module, right):
        return lambda prefix_BS, valid_BS, new, window: right(prefix_BS, valid_BS, new, width(window))

    return {"gemma2.sliding_window": wrong}


def _window_in_prefix(module, right):
    def wrong(prefix_BS, valid_BS, new, window):
        position_BS = valid_BS.cumsum(1)
        distance_BTS = position_BS[:, -new:, None] - position_BS[:, None, :]
        return right(prefix_BS, valid_BS, new, window) & (distance_BTS < window)

    return wrong


def _scale_of_head_width(module, right):
    def wrong(q_BTNH, k_BSKH, v_BSKH, mask_BTS, config):
        config = dataclasses.replace(config, query_pre_attn_scalar=q_BTNH.shape[-1])
        return right(q_BTNH, k_BSKH, v_BSKH, mask_BTS, config)

    return wrong


_ATTEND = "*/run_blocks.0/block.0/grouped_query_attention.0/attend.0/"
_NEAR = "*/run_blocks.0/near_BTS"
_WIDE = "image, prompt and answer fit into the window"
MISTAKES = (
    Mistake(
        "no-attention-softcap",
        "Scores of attention are not soft-capped.",
        "attention kernels that have no cap, such as torch's scaled_dot_product_attention",
        _ATTEND + "capped_BKGTS",
        ({"gemma2.attend": _with_config(attention_softcap=math.inf), "gemma2.soft_cap": _uncapped},),
    ),
    Mistake(
        "no-final-softcap",
        "Logits are not soft-capped: greedy answers stay, what is sampled does not.",
        "big_vision, for the first token of an answer (compute_logits)",
        "*/unembed.0/logit_BTV",
        ({"gemma2.unembed": _with_config(final_softcap=math.inf), "gemma2.soft_cap": _uncapped},),
    ),
    Mistake(
        "no-post-norms",
        "The outputs of attention and MLP are added as they are, as in Gemma.",
        "ports of Gemma, where post_attention_layernorm is the norm before the MLP",
        "*/run_blocks.0/block.0/mid_BTD",
        ({"gemma2.block": _without_post_norms, "gemma2.rms_norm": leaving_out},),
    ),
    Mistake(
        "no-sliding-window",
        "All layers see everything.",
        "big_vision, as its gemma.py says; it matters at 896 pixels only",
        _NEAR,
        (_window(lambda window: 2**30),),
        _WIDE,
    ),
    Mistake(
        "window-off-by-one",
        "A query sees one key too many, or one too few, where the window ends after it.",
        "s >= t - window written for s > t - window",
        _NEAR,
        (_window(lambda window: window + 1), _window(lambda window: window - 1)),
        _WIDE,
    ),
    Mistake(
        "window-in-prefix",
        "The window cuts through the prefix as well.",
        "versions of Hugging Face around 4.48 (issues 35681 and 35691)",
        _NEAR,
        ({"gemma2.sliding_window": _window_in_prefix},),
        _WIDE,
    ),
    Mistake(
        "query-scale-not-from-config",
        "Scores are divided by the square root of the head width: right for 3B and 10B, wrong for 28B.",
        "attention kernels with the usual scale as their default",
        _ATTEND + "q_BTKGH",
        ({"gemma2.attend": _scale_of_head_width},),
        "the configuration's scale is the head width's",
    ),
)
