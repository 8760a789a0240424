"""The blocks of docs/overview.md: one answer, the shape of every stage, and what is right without some parts."""

from PIL import Image

import npgemma
from generated.sources import link, report
from npgemma.config import PUBLISHED
from npgemma.explain.passes import watched
from npgemma.explain.token_names import text_of
from npgemma.image import load_image

PROMPT = "detect red circle"
# The most probable tokens that are shown of every choice.
SHOWN = 3


def told(candidates):
    """Return probable tokens and their probabilities in words."""
    return ", ".join(f"{quoted(candidate.text)} {candidate.probability:.1%}" for candidate in candidates)


def quoted(text):
    """Return the text of a token as code."""
    return f"`{text}`".replace("\n", "\\n")


def one_answer():
    """Return the walk through one answer."""
    # float64, so that every machine writes the same digits.
    model = npgemma.load(dtype="float64")
    config, vision, text = model.config, model.config.vision, model.config.text
    width, height = Image.open(npgemma.example_image()).size
    loaded = load_image(npgemma.example_image(), vision.image_size, model.preprocessing)
    with watched(model, tokens=SHOWN) as passes:
        answered = model.generate(loaded, PROMPT)
    prompt = model.tokenizer.prompt(PROMPT)
    choice = passes.candidates(0, len(answered.token_ids))
    first = loaded.pixels_BYXC[0, 0, 0]
    levels = ", ".join(str(round(float(level + 1) * 127.5)) for level in first)
    side, patch, total = vision.image_size, vision.patch_size, config.image_tokens + len(prompt)
    ids = ", ".join(f"{quoted(text_of(model.tokenizer, id_))} {id_}" for id_ in prompt)
    found = answered.objects[0]
    top = answered.token_ids[0] - model.tokenizer.pieces.piece_to_id("<loc0000>")
    written = [f"   - {told(found[:1])}, before {told(found[1:])}" for found in choice]
    steps = [
        f"**Pixels.** The image, {width} x {height}, is resized to {side} rows (Y) and {side} columns (X), and each of "
        f"the three channels (C) of a pixel becomes a number from -1 to 1: the first pixel, ({levels}), becomes "
        f"{', '.join(f'{level:.2f}' for level in first)} ({link('image', 'load_pixels')}).",
        f"**Patches.** The square is cut into {side // patch} x {side // patch} patches of {patch} x {patch} pixels: "
        f"{config.image_tokens} tokens (T). A matrix and a bias make a vector of {vision.width} (D) of the "
        f"{3 * patch * patch} numbers of each patch, and a vector for the patch's place is added "
        f"({link('siglip', 'embed_patches')}).",
        f"**Vision tower.** In each of {vision.layers} blocks every patch reads from all {config.image_tokens}, with "
        f"{vision.heads} heads (N) of {vision.head_width} channels (H), and its MLP makes {vision.mlp_width} hidden "
        f"channels (F) of its vector on the way ({link('siglip', 'block')}).",
        f"**Projector.** A matrix and a bias: {config.image_tokens} image tokens (P) of {text.width} numbers "
        f"({link('projector', 'project')}).",
        f"**Prompt.** `{PROMPT}` becomes the ids {ids}: {len(prompt)} text tokens, each a row of the embedding table "
        f"({link('tokenizer', 'prompt')}).",
        f"**Decoder.** {config.image_tokens} + {len(prompt)} = {total} tokens (S) pass through {text.layers} blocks. "
        f"All of them belong to the prefix, so each reads from all ({link('gemma', 'run_blocks')}). The vector of "
        f"the last one, the newline, becomes {text.vocabulary} logits (V), one for each row of the table "
        f"({link('gemma', 'unembed')}), and a softmax makes probabilities of them: {told(choice[0])}.",
        "**Answer.** The most probable token is chosen and is the next one to be read. The blocks run again for this "
        f"one token only, since the {total} before it have left their keys and values in a *cache* "
        f"({link('paligemma', 'step')}). So it goes on:\n\n" + "\n".join(written) + "\n\n   Locations are "
        "tokens like any others. The model's next guesses are neighbouring locations, because in training the right "
        "edge was never known to a thousandth of a side; in the embedded model's training a near miss even counted as "
        f"nearly right ({link('answer', 'fraction')}).",
        "**Box.** Locations count 1023rds of a side; the first is that of the top edge: "
        f"{top} / 1023 of {height} pixels is {top / 1023 * height:.1f}. The box is "
        f"{', '.join(f'{edge:.1f}' for edge in found.box)}: left, top, right, bottom "
        f"({link('answer', 'find_objects')}).",
    ]
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


# The walk through the model: stage, axes, and the shape (n text tokens: `<bos>`, prompt, newline, answer so far).
STAGES = [
    ("pixels, from -1 to 1", "`YXC`", lambda c, v, t: (v.image_size, v.image_size, 3)),
    ("patches, in reading order", "`TCyx`", lambda c, v, t: (c.image_tokens, 3, v.patch_size, v.patch_size)),
    ("patch embedding, and SigLIP's residual stream", "`TD`", lambda c, v, t: (c.image_tokens, v.width)),
    ("queries, keys and values in SigLIP (K = N)", "`TNH`", lambda c, v, t: (c.image_tokens, v.heads, v.head_width)),
    ("hidden channels of SigLIP's MLP", "`TF`", lambda c, v, t: (c.image_tokens, v.mlp_width)),
    ("image tokens, after the projector", "`PD`", lambda c, v, t: (c.image_tokens, t.width)),
    ("text tokens, from the embedding table", "`TD`", lambda c, v, t: ("n", t.width)),
    ("Gemma's residual stream: image, then text", "`SD`", lambda c, v, t: (f"({c.image_tokens} + n)", t.width)),
    ("queries in Gemma", "`TNH`", lambda c, v, t: (f"({c.image_tokens} + n)", t.query_heads, t.head_width)),
    ("keys and values in Gemma", "`SKH`", lambda c, v, t: (f"({c.image_tokens} + n)", t.key_value_heads, t.head_width)),
    ("hidden channels of Gemma's MLP", "`TF`", lambda c, v, t: (f"({c.image_tokens} + n)", t.mlp_width)),
    (
        "attention weights in Gemma",
        "`KGTS`",
        lambda c, v, t: (
            t.key_value_heads,
            t.query_heads // t.key_value_heads,
            f"({c.image_tokens} + n)",
            f"({c.image_tokens} + n)",
        ),
    ),
    ("logits of the next token", "`V`", lambda c, v, t: (t.vocabulary,)),
    ("a later step: one token, beside S keys and values of the cache", "`TD`", lambda c, v, t: (1, t.width)),
]


def shapes_table():
    """Return the shape of every stage of the embedded checkpoint and of the 3B model."""
    configs = [npgemma.load().config, PUBLISHED["paligemma-3b-224"]]
    rows = ["| stage | axes | embedded checkpoint | PaliGemma 3B, 224 pixels |", "|---|---|---:|---:|"]
    for stage, letters, shape in STAGES:
        shapes = (" x ".join(map(str, shape(config, config.vision, config.text))) for config in configs)
        rows.append(f"| {stage} | {letters} | {' | '.join(shapes)} |")
    return "\n".join(rows)


def ablations_table(*parts):
    """Return how many answers are right, in percent, with less of these parts of the model."""
    kept = report("ablations")
    columns = {name: right for name, right in kept["right"].items() if name.startswith(("whole", *parts))}
    rows = [f"| task | asked | {' | '.join(columns)} |", f"|---|{'---:|' * (1 + len(columns))}"]
    for task, (_, asked) in columns["whole"].items():
        # Whoever says nothing is right where nothing is there.
        if "nothing there" not in task:
            shares = [f"{100 * right[task][0] / asked:.0f}%" for right in columns.values()]
            rows.append(f"| {task} | {asked} | {' | '.join(shares)} |")
    said = f"{kept['scenes']} held-out scenes, {kept['date']}, commit {kept['commit']} (`reports/ablations.py`)."
    return "\n".join([*rows, "", said])
