"""Mistakes in what the decoder calculates for each token, and in its scores and heads; Gemma's and Gemma 2's alike."""

import math

from npgemma.porting.mistakes.injection import (
    LeftOut,
    Mistake,
    in_decoders,
    leaving_out,
    rounded_to_bfloat16,
    with_weights,
)
from npgemma.porting.mistakes.operations import exact_gelu, silu
from npgemma.probe.following import enclosing


def _epsilon(value):
    """Return the changes that give RMSNorm another epsilon."""
    return in_decoders("rms_norm", lambda module, right: lambda x, scale, epsilon: right(x, scale, value))


def _no_plus_one(module, right):
    # Not ``right(x, scale - 1, epsilon)``: 1 + (scale - 1) would round a small scale far more than a port does.
    return lambda x, scale, epsilon: right(x, 0 * scale, epsilon) * scale


def _fresh_norm(module, right):
    return lambda x, scale, epsilon: right(x, 0 * scale, epsilon)


def _norm_in_bfloat16(module, right):
    return lambda x, scale, epsilon: rounded_to_bfloat16(right(x, scale, epsilon))


def _norm_from_bfloat16(module, right):
    return lambda x, scale, epsilon: rounded_to_bfloat16(right(rounded_to_bfloat16(x), scale, epsilon))


def scale_of(q_BTNH, *config):
    """Return the right scale of the scores: 1 / sqrt(H), or what Gemma 2's config says."""
    return 1 / math.sqrt(config[0].query_pre_attn_scalar if config else q_BTNH.shape[-1])


def _scores_scaled(scale):
    """Return the changes that give scores the scale ``scale(H)``."""

    def wrong(module, right):
        def call(q_BTNH, k_BSKH, v_BSKH, mask_BTS, *config):
            factor = scale(q_BTNH.shape[-1]) / scale_of(q_BTNH, *config)
            return right(q_BTNH * factor, k_BSKH, v_BSKH, mask_BTS, *config)

        return call

    return in_decoders("attend", wrong)


def _tiled(module, right):
    def wrong(q_BTNH, k_BSKH, *others):
        N, K = q_BTNH.shape[2], k_BSKH.shape[2]
        # Query head n should read n // G, and reads n % K: those that read one key/value head are brought together.
        order = [n for shared in range(K) for n in range(shared, N, K)]
        mixed_BTNH = right(q_BTNH[:, :, order], k_BSKH, *others)
        return mixed_BTNH[:, :, [order.index(n) for n in range(N)]]

    return wrong


def _head_scaled(module, right):
    return lambda final_BTD, *others: right(final_BTD * math.sqrt(final_BTD.shape[-1]), *others)


_RUN = "*/run_blocks.0/"
_BLOCK = _RUN + "block.0/"
_ATTENTION = _BLOCK + "grouped_query_attention.0/"
MISTAKES = (
    Mistake(
        "rms-no-plus-one",
        "RMSNorm multiplies by the stored scale instead of by 1 + scale.",
        "RMSNorm as Llama has it (litgpt issue 1031)",
        _BLOCK + "normed_BTD",
        (in_decoders("rms_norm", _no_plus_one),),
    ),
    Mistake(
        "rms-epsilon",
        "RMSNorm has another epsilon than 1e-6, such as Llama's 1e-5.",
        "RMSNorm as Llama has it",
        _BLOCK + "normed_BTD",
        (_epsilon(1e-5), _epsilon(1e-8)),
    ),
    Mistake(
        "text-norms-not-loaded",
        "The decoder's norms have no weights of the checkpoint: all stored scales are 0.",
        "loaders that pass over names they do not know (strict=False)",
        _BLOCK + "normed_BTD",
        (in_decoders("rms_norm", _fresh_norm),),
    ),
    Mistake(
        "norm-in-bfloat16",
        "The decoder's norms are rounded to bfloat16; what goes into them may be as well.",
        "norms that are not lifted to float32 (litgpt issue 1031)",
        _BLOCK + "normed_BTD",
        (in_decoders("rms_norm", _norm_in_bfloat16), in_decoders("rms_norm", _norm_from_bfloat16)),
    ),
    Mistake(
        "exact-gelu",
        "The decoder's GELU is the exact one, with the error function, instead of the tanh form.",
        "configurations that say gelu and mean the tanh form (Hugging Face's first Gemma; litgpt issue 1031)",
        _BLOCK + "geglu.0/gate_BTF",
        ({"gemma.gelu": lambda module, right: exact_gelu},),  # Gemma 2's MLP is Gemma's
    ),
    Mistake(
        "silu",
        "The decoder's gate is SiLU instead of GELU.",
        "the MLP as Llama has it (NVIDIA/TensorRT-Model-Connect issue 720)",
        _BLOCK + "geglu.0/gate_BTF",
        ({"gemma.gelu": lambda module, right: silu},),
    ),
    Mistake(
        "gate-up-swapped",
        "The matrices gate and up are exchanged.",
        "checkpoints that hold both in one matrix",
        _BLOCK + "geglu.0/gate_BTF",
        (in_decoders("geglu", with_weights(1, gate=lambda p: p.up, up=lambda p: p.gate)),),
    ),
    Mistake(
        "query-scale-head-dim",
        "Scores are divided by the head width instead of by its square root.",
        "a square root that was forgotten",
        _ATTENTION + "attend.0/q_BTNH",
        (_scores_scaled(lambda H: 1 / H),),
    ),
    Mistake(
        "query-scale-missing",
        "Scores are not divided at all.",
        "queries thought to be scaled already",
        _ATTENTION + "attend.0/q_BTNH",
        (_scores_scaled(lambda H: 1.0),),
    ),
    Mistake(
        "query-scale-width",
        "Scores are divided by the square root of the model's width instead of the head width's.",
        "ports that take the heads for slices of the width",
        _ATTENTION + "attend.0/q_BTNH",
        (_scores_scaled(lambda H: 1 / math.sqrt(enclosing("x_BTD").shape[-1])),),
        "the model is as wide as a head",
    ),
    Mistake(
        "kv-heads-tiled",
        "Key/value heads are repeated as 0, 1, 0, 1 instead of as 0, 0, 1, 1.",
        "repeat and tile in place of repeat_interleave",
        _ATTENTION + "attend.0/q_BTNH",
        (in_decoders("attend", _tiled),),
        "with one key/value head, or one for each query head, they have no other order",
    ),
    Mistake(
        "k-v-swapped",
        "The matrices of keys and values are exchanged.",
        "checkpoints that hold both in one matrix",
        _ATTENTION + "k_BTKH",
        (in_decoders("grouped_query_attention", with_weights(3, k=lambda p: p.v, v=lambda p: p.k)),),
    ),
    Mistake(
        "no-final-norm",
        "The norm after the last block of the decoder is left out.",
        "ports that take the last hidden state for the decoder's result",
        _RUN + "final_BTD",
        (in_decoders("run_blocks", with_weights(3, norm=lambda p: LeftOut())) | in_decoders("rms_norm", leaving_out),),
    ),
    Mistake(
        "head-scaled",
        "The output head is multiplied by the square root of the width, as the embedding is: the first token stays.",
        "ports that scale the table itself, which is both (tensai issue 248)",
        "*/unembed.0/*",
        (in_decoders("unembed", _head_scaled),),
    ),
)
