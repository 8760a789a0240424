"""Hugging Face's PaliGemma as a port: right, it is told to be; broken in its own modules, its mistake is named."""

import collections
import random

import numpy as np
import pytest
import torch

import npgemma
from npgemma.image import load_image
from npgemma.tools.hypotheses import Question
from npgemma.tools.logits import Answer, diagnose

pytest.importorskip("transformers", reason="needs transformers: pip install 'npgemma[oracle]'")
foreign_port = pytest.importorskip("foreign_port")

IMAGES = [npgemma.embedded_checkpoint() / "gallery" / name for name in ("two-boxes.png", "wide.png", "text.png")]
PROMPTS = ("detect red circle ; blue square", "caption en", "answer en how many objects")
ROWS = 6
DTYPES = ("float32", "bfloat16", "float16")


def outcome(port, dtype, image, prompt, mistake=None):
    """What is said of the port: the names of its mistakes, or the verdict where there are none."""
    model = port.ours
    logits, tokens = port.answer(image, prompt, ROWS, mistake)
    if not np.isfinite(logits).all():
        return "undecided"
    question = Question(model, lambda: load_image(image, model.config.vision.image_size), prompt, tokens.tolist())
    logits = logits[:, : model.tokenizer.size].astype(np.float64)
    report = diagnose(Answer(logits, tokens.tolist()), question, dtype)
    return " ".join(found["name"] for found in report["mistakes"]) or report["verdict"]


@pytest.fixture(scope="module")
def port(gemma_2_folder):
    return foreign_port.Port(npgemma.load(gemma_2_folder), "float32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_right_port_is_right(gemma_2_folder, dtype):
    port = foreign_port.Port(npgemma.load(gemma_2_folder), dtype)
    assert outcome(port, dtype, IMAGES[0], PROMPTS[0]) == "right"


@pytest.mark.parametrize("id", random.Random(0).sample(["text-unscaled", "silu", "no-final-softcap", "double-bos"], 2))
def test_a_known_mistake_is_named(port, id):
    known = foreign_port.KNOWN | foreign_port.KNOWN_OF_GEMMA_2
    assert outcome(port, "float32", IMAGES[0], PROMPTS[0], known[id]) == id


@pytest.mark.parametrize("name", random.Random(0).sample(sorted(foreign_port.UNKNOWN), 1))
def test_an_unknown_mistake_gets_no_name(port, name):
    assert outcome(port, "float32", IMAGES[0], PROMPTS[0], foreign_port.UNKNOWN[name]) in ("undecided", "right")


# Of the known mistakes, how many must be named for every image and prompt.
NAMED = {"float32": 0.9, "bfloat16": 0.75}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["embedded", "PaliGemma 2"])
def test_all_mistakes(gemma_2_folder, family, dtype, capsys):
    torch.set_num_threads(1)
    gemma_2 = family == "PaliGemma 2"
    port = foreign_port.Port(npgemma.load(gemma_2_folder if gemma_2 else None), dtype)
    known = foreign_port.KNOWN | (foreign_port.KNOWN_OF_GEMMA_2 if gemma_2 else {})
    asked = [(image, prompt) for image in IMAGES for prompt in PROMPTS]
    named = wrong = 0
    for name, mistake in ({"": None} | known | foreign_port.UNKNOWN).items():
        said = collections.Counter(outcome(port, dtype, *each, mistake) for each in asked)
        with capsys.disabled():
            print(f"{family:12} {dtype:9} {name or 'unbroken':40} {dict(said)}", flush=True)
        assert name or set(said) == {"right"}
        named += name in known and set(said) == {name}
        wrong += bool(set(said) - {"right", "undecided", name})
    assert wrong == 0
    assert named >= NAMED.get(dtype, 0) * len(known)
