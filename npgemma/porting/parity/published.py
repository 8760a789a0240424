"""What is known of the published checkpoints, and how one is recognised: by what its folder holds, not by its name."""

from npgemma.config import PUBLISHED
from npgemma.tokenizer import Tokenizer

PIECES = 257152
# Ids stated in Hugging Face's tests, by text.
KNOWN_IDS = {
    "\n": [108],
    "Where is the cow standing?": [6006, 603, 573, 13910, 9980, 235336],
    "<loc0000><seg000>": [256000, 257024],
}
# Here the published tokenizer has a word, and one of ``python -m conversion synthesize`` a filler.
FILLED = 200_000

# Keras Hub's golden of paligemma-3b-mix-224: the first five channels of the first image token, after the final norm.
MIX_IDS = [1169, 2068, 7586, 21831, 13]
MIX_CHANNELS = [-0.449851, 1.431027, -0.713446, 0.417485, -0.640859]
MIX_TOLERANCE = 0.01
# Hugging Face's integration test of paligemma-3b-pt-224. The image is not ours to ship, so whoever has it brings it.
PT_IMAGE = "cow_beach_1.png"
PT_ANSWERS = {"": "cow on the beach", "answer en Where is the cow standing?": "beach"}


def size_of(config):
    """Return which published size this is, or None."""
    towers = config.vision, config.text
    return next((name for name, known in PUBLISHED.items() if (known.vision, known.text) == towers), None)


def has_published_tokenizer(folder):
    """Return whether a folder's tokenizer is the published one.

    As many pieces, words up to the last, and other ids are a ValueError: either the file is damaged or we read it
    wrongly, and neither may pass for a checkpoint that is not published.
    """
    path = folder / "tokenizer.model"
    if not path.is_file():
        return False
    pieces = Tokenizer(path).pieces
    if pieces.get_piece_size() != PIECES or pieces.is_unused(FILLED):
        return False
    found = {text: pieces.encode(text) for text in KNOWN_IDS}
    if found != KNOWN_IDS:
        raise ValueError(f"a tokenizer of the published size should give the ids {KNOWN_IDS}, found {found}")
    return True


def variant(mix_error, pt_answers):
    """Tell ``pt`` or ``mix`` by the largest distance from `MIX_CHANNELS` and by answers, None without the image.

    Sizes and tokenizer are the same for pt, mix and every model fine-tuned from them, so they cannot tell. What is not
    mix and has no answers cannot be told, None; what was measured and is neither is a ValueError.
    """
    if mix_error < MIX_TOLERANCE:
        return "mix"
    if pt_answers is None:
        return None
    if pt_answers != PT_ANSWERS:
        raise ValueError(
            f"neither mix (off by {mix_error:.3g}, tolerance {MIX_TOLERANCE}) nor pt (answers {pt_answers}): a model "
            "fine-tuned from them, or a mistake of ours"
        )
    return "pt"
