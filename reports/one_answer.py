"""One answer of the embedded model, from pixels to a box, with its numbers: a block of docs/overview.md."""

import ast
import pathlib

from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
PROMPT = "detect red circle"
# The most probable tokens that are shown of every choice.
SHOWN = 3


def link(name, function):
    """Return a link to a function of the forward pass."""
    tree = ast.parse((ROOT / "npgemma" / name).read_text())
    line = next(node.lineno for node in ast.walk(tree) if getattr(node, "name", None) == function)
    return f"[`{function}`](../npgemma/{name}#L{line})"


def told(candidates):
    """Return probable tokens and their probabilities in words."""
    return ", ".join(f"{quoted(candidate.text)} {candidate.probability:.1%}" for candidate in candidates)


def quoted(text):
    """Return the text of a token as code."""
    return f"`{text}`".replace("\n", "\\n")


def walk():
    """Return the walk as Markdown."""
    import npgemma
    from npgemma.explain.passes import text_of, watched
    from npgemma.image import load_image

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
    thing = answered.objects[0]
    top = answered.token_ids[0] - model.tokenizer.pieces.piece_to_id("<loc0000>")
    written = [f"   - {told(found[:1])}, before {told(found[1:])}" for found in choice]
    steps = [
        f"**Pixels.** The image, {width} x {height}, is resized to {side} rows (Y) and {side} columns (X), and each of "
        f"the three channels (C) of a pixel becomes a number from -1 to 1: the first pixel, ({levels}), becomes "
        f"{', '.join(f'{level:.2f}' for level in first)} ({link('image.py', 'load_pixels')}).",
        f"**Patches.** The square is cut into {side // patch} x {side // patch} patches of {patch} x {patch} pixels: "
        f"{config.image_tokens} tokens (T). One matrix makes of the {3 * patch * patch} numbers of each patch a vector "
        f"of {vision.width} (D), and a vector for the patch's place is added ({link('siglip.py', 'embed_patches')}).",
        f"**Vision tower.** In each of {vision.layers} blocks every patch reads from all {config.image_tokens}, with "
        f"{vision.heads} heads (N) of {vision.head_width} channels (H), and its MLP makes {vision.mlp_width} hidden "
        f"channels (F) of its vector on the way ({link('siglip.py', 'block')}).",
        f"**Projector.** One more matrix: {config.image_tokens} image tokens (P) of {text.width} numbers "
        f"({link('projector.py', 'project')}).",
        f"**Prompt.** `{PROMPT}` becomes the ids {ids}: {len(prompt)} text tokens, each a row of the embedding table "
        f"({link('tokenizer.py', 'prompt')}).",
        f"**Decoder.** {config.image_tokens} + {len(prompt)} = {total} tokens (S) pass through {text.layers} blocks. "
        f"All of them belong to the prefix, so each reads from all ({link('gemma.py', 'run_blocks')}). The vector of "
        f"the last one, the newline, becomes {text.vocabulary} logits (V), one for each row of the table "
        f"({link('gemma.py', 'unembed')}), and a softmax makes probabilities of them: {told(choice[0])}.",
        "**Answer.** The most probable token is chosen and is the next one to be read. The blocks run again for this "
        f"one token only, since the {total} before it have left their keys and values in the cache "
        f"({link('paligemma.py', 'step')}). So it goes on:\n\n" + "\n".join(written) + "\n\n   Locations are "
        "tokens like any others: which of them lie side by side the model had to learn, and its next guesses show that "
        "it did.",
        "**Box.** Locations count 1023rds of a side, those of the top edge first: "
        f"{top} / 1023 of {height} pixels is {top / 1023 * height:.1f}. The box is "
        f"{', '.join(f'{edge:.1f}' for edge in thing.box)}: left, top, right, bottom "
        f"({link('answer.py', 'find_objects')}).",
    ]
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


if __name__ == "__main__":
    print(walk())
