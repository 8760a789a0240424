"""The table of docs/mistakes.md: every known mistake, and which check sees it.

What the library does not know stands in the lists below; ``test_witnesses.py`` injects every mistake and checks them.
"""

import re

from generated import ROOT
from npgemma.porting.diagnosis.naming import RIGHT_IF_NARROW
from npgemma.porting.mistakes import MISTAKES

# Logits of Hugging Face, one golden file for each decoder; both see every mistake that is possible in theirs, but for
# those of `SEEN_BY`: an epsilon shows only where activations are tiny, and some are made before pixels and ids.
GOLDENS = {"PaliGemma 1": "grouped_padded", "PaliGemma 2": "gemma2_window"}
_RESIZED = "test_golden::test_pixels_are_those_of_hugging_faces_image_processor"
SEEN_BY = {
    "resize-bilinear": (_RESIZED,),
    "resize-nearest": (_RESIZED,),
    "resize-no-antialias": (_RESIZED,),
    "resize-letterbox": (_RESIZED,),
    "resize-crop": (_RESIZED,),
    "resize-not-to-bytes": (_RESIZED,),
    "vision-epsilon": ("float16_small",),
    "rms-epsilon": ("float16_small", "test_gemma2::test_block"),
    "no-newline": ("test_tokenizer::test_prompt_layout",),
    "no-bos": ("test_tokenizer::test_prompt_layout",),
    "double-bos": ("test_tokenizer::test_empty_prompt",),
    "locations-1024": ("test_answer::test_the_order_is_top_left_bottom_right",),
    "locations-x-first": ("test_model::test_objects_are_told_in_pixels_of_the_image",),
    "padded-vocabulary-wins": ("test_model::test_rows_without_a_piece_are_never_chosen",),
    "eos-ignored": ("test_model::test_every_answer_says_why_it_ended",),
    "top-p-drops-crossing-token": ("test_model::test_the_token_that_reaches_top_p_is_drawn_and_no_further_one",),
}
# These move arrays by less than bfloat16 rounds them.
BELOW_BFLOAT16 = (
    "pixels-divided-by-128", "resize-not-to-bytes", "vision-epsilon", "vision-exact-gelu", "vision-quick-gelu",
    "rms-epsilon", "exact-gelu", "rope-frequencies-bfloat16",
)  # fmt: skip
# Only rows of different lengths have padding, and a port's answer to one prompt has none.
IN_BATCHES = ("padding-visible",)
# The tokens of an answer show these, whatever the logits are.
BY_TOKENS = ("padded-vocabulary-wins", "eos-ignored")


def around(id):
    """Say whether a mistake is made in what stands around the forward pass, so that no array can show it."""
    return not MISTAKES[id].shows_in_arrays


def witnesses(id):
    """Return what sees a mistake: names of golden files, and of tests as ``file::name``."""
    return SEEN_BY.get(id) or [
        golden for family, golden in GOLDENS.items() if family == "PaliGemma 2" or not MISTAKES[id].only_gemma2
    ]


def shows(id, dtype):
    """Say whether the arrays of one prompt show a mistake, as `cli.py parity` compares them."""
    narrow = dtype == "bfloat16" and id in (*RIGHT_IF_NARROW, *BELOW_BFLOAT16)
    return not (around(id) or id in IN_BATCHES or narrow)


def named_by_logits(id):
    """Say whether `diagnose --logits` names a mistake, of a port of float32."""
    return shows(id, "float32")


def table():
    """Return one row for each mistake."""
    rows = [
        "| mistake | what it is | made by | first array that differs | in arrays | from logits | test that fails |",
        "|---|---|---|---|---|---|---|",
    ]
    for id, mistake in MISTAKES.items():
        family = " (PaliGemma 2)" if mistake.only_gemma2 else ""
        place = mistake.place if around(id) else f"`{mistake.place}`"
        seen = ", ".join(map(_written, witnesses(id)))
        says = re.sub(r"<\w+>", r"`\g<0>`", mistake.says)
        cells = (f"`{id}`{family}", says, mistake.made_by, place, _arrays(id), _logits(id), seen)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _arrays(id):
    if around(id):
        return "no"
    if id in IN_BATCHES:
        return "in batches"
    if id in RIGHT_IF_NARROW:
        return "float32; in bfloat16 a right program does the same"
    return "float32; in bfloat16 below rounding" if id in BELOW_BFLOAT16 else "float32, bfloat16"


def _logits(id):
    if named_by_logits(id):
        return "yes"
    return "by the tokens" if id in BY_TOKENS else f"no: {MISTAKES[id].unseen}"


def file_of(test):
    """Return the file of a test that is named ``file::name``."""
    [path] = (ROOT / "tests").rglob(f"{test.partition('::')[0]}.py")
    return path.relative_to(ROOT)


def _written(witness):
    if "::" not in witness:
        return f"golden `{witness}`"
    return f"[`{witness.partition('::')[2]}`](../{file_of(witness)})"
