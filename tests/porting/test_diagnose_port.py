"""Hugging Face's PaliGemma as a port: right, it is told to be; broken in its own modules, its mistake is named."""

import random

import numpy as np
import pytest

import npgemma
from npgemma.image import load_image
from npgemma.porting.logits import Answer, diagnose
from npgemma.porting.logits.question import Question

pytest.importorskip("transformers", reason="needs transformers: pip install 'npgemma[oracle]'")
foreign_port = pytest.importorskip("foreign_port")

IMAGE = npgemma.example_image()
PROMPT = "detect red circle ; blue square"
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
    assert outcome(port, dtype, IMAGE, PROMPT) == "right"


@pytest.mark.parametrize("id", random.Random(0).sample(["text-unscaled", "silu", "no-final-softcap", "double-bos"], 2))
def test_a_known_mistake_is_named(port, id):
    known = foreign_port.KNOWN | foreign_port.KNOWN_OF_GEMMA_2
    assert outcome(port, "float32", IMAGE, PROMPT, known[id]) == id


@pytest.mark.parametrize("name", random.Random(0).sample(sorted(foreign_port.UNKNOWN), 1))
def test_an_unknown_mistake_gets_no_name(port, name):
    assert outcome(port, "float32", IMAGE, PROMPT, foreign_port.UNKNOWN[name]) in ("undecided", "right")
