"""What training starts from: the model's sizes, its tokenizer and its first weights."""

import math
import pathlib

import numpy as np
import torch

import conversion
from conversion.vocabulary import SEGMENTS, write_tokenizer
from npgemma.config import Config, TextConfig, VisionConfig
from npgemma.params import Params, map_leaves
from tiny.training import drawing, scenes
from tiny.training.places import waves
from tiny.training.prompts import LOCATIONS, examples
from tiny.training.tower import CHARACTERS, MASK_CODES

# No two of these are equal that a port could exchange: widths, heads times head width, picture tokens (64).
VISION = VisionConfig(width=128, mlp_width=512, layers=5, heads=4, image_size=112, patch_size=14)
TEXT = {"width": 144, "mlp_width": 480, "layers": 3, "query_heads": 4, "key_value_heads": 2, "head_width": 136}
CONTEXT = 256
# A few thousand captions and questions hold every word there is.
CORPUS_SCENES = 2000


def prepare(folder: pathlib.Path) -> Config:
    """Write the tokenizer; return the configuration of the model that goes with it."""
    sentences = [text for seed in scenes.TRAINING_SEEDS[:CORPUS_SCENES] for text in _sentences(seed)]
    # The trainer only makes pieces of what several of its words share: each word once more by itself becomes a piece.
    words = sorted(set(" ".join(sentences).replace(",", "").split()))
    corpus = [*sentences, *words, *(f" {word}" for word in words), *CHARACTERS]
    pieces = write_tokenizer(folder / "tokenizer.model", corpus)
    rows = 64 * math.ceil((pieces + 1) / 64)
    return Config(VISION, TextConfig(**TEXT, vocabulary=rows, context_length=CONTEXT), image_token=pieces)


def _sentences(seed):
    """Return what is asked and answered in words; what is read out of a picture is spelt."""
    scene = scenes.scene(seed)
    shown = drawing.shown(scene)
    codes = [[0] * MASK_CODES] * len(shown)
    asked = examples(scene, shown, codes, np.random.default_rng(seed))
    answers = [example.answer for example in asked if example.task != "ocr" and "<loc" not in example.answer]
    return [example.prompt for example in asked] + answers


def first_location(config):
    """Return the id of ``<loc0000>``: the last pieces are those for coordinates and those for masks."""
    return config.image_token - LOCATIONS - len(SEGMENTS)


def initial_params(config: Config, seed: int) -> Params:
    """Return the weights to start from, as tensors: random, but places know their neighbours."""
    randomly = conversion.random_params(config, seed, spread=0)
    params = map_leaves(lambda array: torch.from_numpy(np.array(array, order="C")), randomly)
    per_side, width = config.vision.image_size // config.vision.patch_size, config.text.width
    along = waves(per_side, config.vision.width // 2)
    # In reading order the row changes slowly and the column fast.
    places = torch.cat([along.repeat_interleave(per_side, dim=0), along.repeat(per_side, 1)], dim=1)
    params.vision.position_embedding.copy_(places)
    # In the lower half of the tower, keys start as the queries: a patch looks first at patches like itself, those near.
    for block in params.vision.blocks[: config.vision.layers // 2]:
        block.attn.q.mul_(1.5)
        block.attn.k.copy_(block.attn.q)
    # Rows of the table are as long as random ones: 1.
    params.text.embedding[first_location(config) :][:LOCATIONS] = waves(LOCATIONS, width) / math.sqrt(width)
    return params


def name_what_is_seen(params, lesson, tokenizer):
    """Let the decoder begin with the words in which the tower has learned to see, and with attention that copies.

    The first lesson's layer, once it is trained, has a direction for each thing it tells apart. The words for these
    things start as just these directions, in both languages, and the projector starts by handing on what it gets: a
    word then resembles the patches that it describes. The first query head of each key head starts by reading from what
    resembles the reader, whatever it is, and all start by handing on what they read unchanged, as far as they are wide
    enough. The tensors of ``params`` are changed in place.
    """
    directions, seen = lesson.directions(), len(params.projector.linear)
    for token in range(tokenizer.size):
        word = tokenizer.pieces.id_to_piece(token).removeprefix("▁")
        if word in directions:
            params.text.embedding[token] = 0
            params.text.embedding[token, :seen] = directions[word]
    params.projector.linear.copy_(torch.eye(*params.projector.linear.shape))
    for block in params.text.blocks:
        attn = block.attn
        _, key_heads, _ = attn.k.shape
        query_heads, *read = attn.o.shape
        for head in range(key_heads):
            attn.k[:, head] = torch.linalg.qr(attn.k[:, head])[0]
            # Halved, so that a reader, which resembles itself most of all, does not read itself alone.
            attn.q[:, head * query_heads // key_heads] = attn.k[:, head] / 2
            attn.v[:, head] = torch.eye(*attn.v[:, head].shape)
        attn.o.copy_((torch.eye(*read) / query_heads).expand_as(attn.o))
