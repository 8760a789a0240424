"""Every function of the room against central differences, in float64, and against the one contract."""

import importlib
import inspect

import numpy as np
import pytest
from learning import of_random_weights
from support import random

from npgemma import attention, contrastive, gemma, gemma2, loss, ops, paligemma, projector, rope, siglip
from npgemma.mask import sliding_window
from npgemma.params import map_leaves

# Beside the largest gradient of all arguments; the largest seen is 2.7e-9, rounding of the differences.
BOUND, STEP = 1e-7, 1e-6
LEARNED = "float64", "npgemma.params"
# The most entries of an array that are moved, of a function with few arrays and with many; drawn where it has more.
MOST, FEW = 60, 2
rng = np.random.default_rng(0)


def r(*shape):
    return random(shape, sum(shape))


# No two axes of a case are of one size, and norms and biases are random.
(P1, C1, DATA), (P2, C2, _) = (of_random_weights(name, "float64") for name in ("two key/value heads", "Gemma 2"))
P1, P2 = map_leaves(np.array, P1), map_leaves(np.array, P2)
T1, T2, V1, (IMAGE, STREAM) = P1.text, P2.text, P1.vision, (r(2, 16, 30), r(2, 27, 30))
IDS, FLAGS = DATA.ids_BT, [paligemma.with_image(flag, IMAGE) for flag in (DATA.prefix_BT, DATA.valid_BT)]
X, PATCHES, TABLE = r(4, 7, 30), r(4, 16, 24), type(T1)(T1.embedding, blocks=(), norm=T1.norm)
ANGLE, ANGLE_2 = (rope.angles(np.arange(28).reshape(4, 7), width, 1e4) for width in (10, 14))
Q, KEYS, VALUES, MASK = r(4, 7, 6, 10), r(4, 9, 2, 10), r(4, 9, 2, 10), np.tri(7, 9, 2, dtype=bool)[None]
SQUARE = sliding_window(np.arange(7) < [[2], [3], [4], [5]], np.arange(7) != [[9], [1], [9], [2]], 7, 2)
CASES = [
    *((ops.einsum, formula, r(*first), r(*second)) for formula, first, second in (
        ("BTD,DF->BTF", (4, 7, 3), (3, 5)), ("BTD,DNH->BTNH", (4, 7, 3), (3, 6, 2)), ("BTD,VD->BTV", (4, 7, 3), (5, 3)),
        ("BTNH,NHD->BTD", (4, 7, 6, 2), (6, 2, 3)), ("BTKGH,BSKH->BKGTS", (4, 7, 2, 3, 5), (4, 9, 2, 5)),
        ("BKGTS,BSKH->BTKGH", (4, 2, 3, 7, 9), (4, 9, 2, 5)), ("BTCyx,CyxD->BTD", (4, 7, 3, 2, 5), (3, 2, 5, 6)),
    )),
    (ops.softmax, X), (ops.gelu, 2 * X), (ops.soft_cap, X, 1.5), (ops.layer_norm, PATCHES, V1.norm, 1e-2),
    (ops.rms_norm, X, T1.norm, 1e-2), (attention.attend, Q, KEYS, VALUES), (attention.attend, Q, KEYS, VALUES, MASK),
    (rope.rotate, Q, ANGLE), (projector.project, PATCHES, P1.projector), (siglip.patchify, r(4, 9, 14, 3), 4),
    (siglip.embed_patches, r(4, 16, 3, 7, 7), V1), (siglip.mlp, PATCHES, V1.blocks[0].mlp),
    (siglip.self_attention, PATCHES, V1.blocks[0].attn), (siglip.block, PATCHES, V1.blocks[0], C1.vision),
    (siglip.encode, DATA.pixels, V1, C1.vision),
    (contrastive.sigmoid_loss, r(4, 5), r(4, 5) + 1, np.array(3.0), np.array(-2.0)),
    (gemma.embed_tokens, IDS, TABLE), (gemma.geglu, X, T1.blocks[0].mlp), (gemma.unembed, X, TABLE, C1.text),
    (gemma.grouped_query_attention, X, ANGLE, SQUARE, T1.blocks[0].attn),
    (gemma.block, X, ANGLE, SQUARE, T1.blocks[0], C1.text), (gemma.run_blocks, STREAM, *FLAGS, T1, C1.text),
    (gemma2.attend, Q, KEYS, VALUES, MASK, C2.text), (gemma2.unembed, X, T2, C2.text),
    (gemma2.grouped_query_attention, X, ANGLE_2, SQUARE, T2.blocks[0].attn, C2.text),
    (gemma2.block, X, ANGLE_2, SQUARE, T2.blocks[0], C2.text),
    (gemma2.run_blocks, STREAM, *FLAGS, T2, C2.text),
    (paligemma.encode_image, DATA.pixels, P1, C1), (paligemma.encode_images, r(2, 3, 28, 28, 3), P1, C1),
    *((paligemma.logits, IMAGE, IDS, DATA.prefix_BT, DATA.valid_BT, p, config) for p, config in ((P1, C1), (P2, C2))),
    (loss.next_token_loss, r(2, 11, 101), IDS, DATA.answer_BT),
]  # fmt: skip


def pairs(argument, gradient):
    """Yield each array of an argument with its gradient; None stands for zeros, the table's may come alone."""
    if isinstance(argument, np.ndarray):
        yield argument, np.zeros_like(argument) if gradient is None else np.asarray(gradient)
    elif isinstance(argument, tuple):
        for i, part in enumerate(argument):
            yield from pairs(part, gradient and gradient[i])
    else:
        given = {"embedding": gradient} if isinstance(gradient, np.ndarray) else vars(gradient) if gradient else {}
        assert given.keys() <= vars(argument).keys()
        for name, part in vars(argument).items():
            yield from pairs(part, given.get(name))


def backward_of(function):
    module = importlib.import_module(f"npgemma.backward.{function.__module__.rpartition('.')[2]}")
    return getattr(module, f"{function.__name__}_backward")


@pytest.mark.parametrize(("function", "arguments"), [(function, given) for function, *given in CASES])
def test_central_differences(function, arguments):
    dresult = r(*np.shape(function(*arguments)))
    found = backward_of(function)(dresult, *arguments)
    found = found if isinstance(found, tuple) else (found,)
    learned = [each for each in arguments if each is not ANGLE and each is not ANGLE_2]
    taken = [each for each in learned if str(getattr(each, "dtype", type(each).__module__)) in LEARNED]
    both = [pair for argument, gradient in zip(taken, found, strict=True) for pair in pairs(argument, gradient)]
    calculated, measured = [], []
    for array, gradient in both:
        assert gradient.shape == array.shape
        every = list(np.ndindex(array.shape))
        for i in rng.permutation(len(every))[: MOST if len(both) < 20 else FEW]:
            kept, moved = array[every[i]], []
            for step in (STEP, -STEP):
                array[every[i]] = kept + step
                moved.append(np.array(function(*arguments)))
            array[every[i]] = kept
            measured.append(((moved[0] - moved[1]) * dresult).sum() / (2 * STEP))
            calculated.append(gradient[every[i]])
    assert np.abs(np.subtract(calculated, measured)).max() < BOUND * np.abs(measured).max()


# What has no gradient; what runs with a cache; operations of the mask codebook, and the loss that SigLIP replaced.
WITHOUT = "relu convolve convolve_transposed angles decoder_of with_image prefill step softmax_loss"


@pytest.mark.parametrize(
    "forward", [ops, attention, rope, siglip, gemma, gemma2, paligemma, contrastive, loss, projector]
)
def test_one_contract_for_all(forward):
    """Every function has one backwards, which takes the gradient of the result, then its arguments, and is tested."""
    own = {n: f for n, f in vars(forward).items() if inspect.isroutine(f) and f.__module__ == forward.__name__}
    for name in set(own) - set(WITHOUT.split()):
        assert own[name] in [function for function, *_ in CASES]
        first, *taken = inspect.signature(backward_of(own[name])).parameters
        arguments = [each for each in inspect.signature(own[name]).parameters if each != "cache"]
        assert first.startswith("d"), name
        assert taken[: len(arguments)] == arguments or name == "einsum", name
