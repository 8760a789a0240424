"""Known mistakes of ports, made on purpose: ``with made("window-off-by-one"): model.logits(...)``.

Each has an id, what it is, who made it, and the place where it shows first. Functions of the forward pass are exchanged
for wrong ones while a mistake is made; nothing of it stands in the forward pass itself. So far: those of PaliGemma 2.
"""

import contextlib
import dataclasses
import importlib
import types
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock


@dataclass(frozen=True)
class Mistake:
    """A known mistake.

    Parameters
    ----------
    id : str
    says : str
        The mistake in one sentence.
    made_by : str
        Who made it, or what leads to it.
    place : str
        Pattern of the first array in a trace that differs.
    function : str
        What is exchanged, within a backend's package: ``"gemma2.attend"``.
    wrong : callable
        ``wrong(module, right)`` returns the wrong function, made of the right one and of others of its module. Uses
        only what arrays of both backends have.
    """

    id: str
    says: str
    made_by: str
    place: str
    function: str
    wrong: Callable


@contextlib.contextmanager
def made(id, package="npgemma"):
    """Make a mistake in everything that runs inside a ``with`` block, in all threads.

    Parameters
    ----------
    id : str
        A key of `MISTAKES`.
    package : str
        The backend: ``npgemma`` or ``torch_ref``.
    """
    mistake = MISTAKES[id]
    module, _, function = mistake.function.rpartition(".")
    module = importlib.import_module(f"{package}.{module}")
    # The right function sees the module as it is now, whatever is exchanged in it.
    right = getattr(module, function)
    with mock.patch.object(module, function, mistake.wrong(module, right)):
        yield


def _without_soft_cap(module, right):
    def wrong(*arguments):
        with mock.patch.object(module, "soft_cap", lambda x, cap: x):
            return right(*arguments)

    return wrong


def _without_post_norms(module, right):
    rms_norm = module.rms_norm

    def wrong(x_BTD, angle_BTh, mask_BTS, p, config, cache=None):
        def skipping(x, scale, epsilon):
            return x if scale is p.attn_out_norm or scale is p.mlp_out_norm else rms_norm(x, scale, epsilon)

        with mock.patch.object(module, "rms_norm", skipping):
            return right(x_BTD, angle_BTh, mask_BTS, p, config, cache)

    return wrong


def _without_window(module, right):
    return lambda prefix_BS, valid_BS, new, window: right(prefix_BS, valid_BS, new, 2**30)


def _one_more(module, right):
    return lambda prefix_BS, valid_BS, new, window: right(prefix_BS, valid_BS, new, window + 1)


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
MISTAKES = types.MappingProxyType(
    {
        mistake.id: mistake
        for mistake in (
            Mistake(
                "no-attention-softcap",
                "Scores of attention are not soft-capped.",
                "attention kernels that have no cap, such as torch's scaled_dot_product_attention",
                _ATTEND + "capped_BKGTS",
                "gemma2.attend",
                _without_soft_cap,
            ),
            Mistake(
                "no-final-softcap",
                "Logits are not soft-capped: greedy answers stay, what is sampled does not.",
                "big_vision, for the first token of an answer (compute_logits)",
                "*/unembed.0/logit_BTV",
                "gemma2.unembed",
                _without_soft_cap,
            ),
            Mistake(
                "no-post-norms",
                "The outputs of attention and MLP are added as they are, as in Gemma.",
                "ports of Gemma, where post_attention_layernorm is the norm before the MLP",
                "*/run_blocks.0/block.0/mid_BTD",
                "gemma2.block",
                _without_post_norms,
            ),
            Mistake(
                "no-sliding-window",
                "All layers see everything.",
                "big_vision, as its gemma.py says; it matters at 896 pixels only",
                "*/run_blocks.0/near_BTS",
                "gemma2.sliding_window",
                _without_window,
            ),
            Mistake(
                "window-off-by-one",
                "A query sees one key too many: those back to t - window, where the window ends after it.",
                "s >= t - window written for s > t - window",
                "*/run_blocks.0/near_BTS",
                "gemma2.sliding_window",
                _one_more,
            ),
            Mistake(
                "window-in-prefix",
                "The window cuts through the prefix as well.",
                "versions of Hugging Face around 4.48 (issues 35681 and 35691)",
                "*/run_blocks.0/near_BTS",
                "gemma2.sliding_window",
                _window_in_prefix,
            ),
            Mistake(
                "query-scale-not-from-config",
                "Scores are divided by the square root of the head width: right for 3B and 10B, wrong for 28B.",
                "attention kernels with the usual scale as their default",
                _ATTEND + "q_BTKGH",
                "gemma2.attend",
                _scale_of_head_width,
            ),
        )
    }
)
