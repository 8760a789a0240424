"""Draw the attention of an answer's tokens: a row for each token, a column for each of the sharpest heads."""

import numpy as np
from PIL import Image, ImageDraw

from npgemma.command.fonts import font_for
from npgemma.explain.attention_maps import PARTS, Attention
from npgemma.explain.token_names import text_of
from npgemma.files.foreign import shown

# Height of a map in pixels, of the letters, between cells, and the width of the tokens' column.
MAP, LETTERS, GAP, WORDS = 192, 16, 8, 140
HEADS = 4
# Of the weight on a patch (Okabe and Ito's palette), and of each part in the bar under a map.
HEAT, SHARES = "#D55E00", tuple(PARTS.values())
BAR = 6


def attention_sheet(seen: Image.Image, attention: Attention, answer, tokenizer) -> Image.Image:
    """Draw the attention of every token of an answer onto ``seen``, the square that the model saw; of several images,
    the squares side by side.

    The columns are the `HEADS` heads that look at the image most sharply. A patch is coloured by its weight
    (`heat_map`). Beneath stand the shares of the whole weight that the image, ``<bos>``, the prompt and the answer so
    far get, in percent and as a bar.
    """
    heads = attention.sharpest(HEADS)
    width = MAP * seen.width // seen.height
    top, row = MAP + LETTERS + 3 * GAP, MAP + BAR + LETTERS + 3 * GAP
    size = (WORDS + len(heads) * (width + GAP), top + row * len(answer.token_ids))
    sheet = Image.new("RGB", size, "white")
    sheet.paste(seen.resize((width, MAP)), (GAP, GAP))
    _head(sheet, heads, attention.weight_TLNS[0].shape, width)
    pale = pale_of(seen, (width, MAP))
    for token, i in enumerate(answer.token_ids):
        start = top + token * row
        write(sheet, (GAP, start + MAP // 2), text_of(tokenizer, i).strip() or repr(text_of(tokenizer, i)))
        for column, (layer, head) in enumerate(heads):
            left = WORDS + column * (width + GAP)
            sheet.paste(heat_map(pale, attention.map(token, layer, head)), (left, start))
            _shares(sheet, attention.shares(token, layer, head), (left, start + MAP + 2), width)
    return sheet


def _head(sheet, heads, shape, width):
    """Write beside the image what the sheet shows, and the heads above their columns."""
    lines = [
        "the image as the model sees it, and where each token of the answer looked",
        f"{len(heads)} of {shape[0] * shape[1]} heads, those that look at the image most sharply",
        "colour: weight of a patch, relative to the map's largest, fading with the image's share",
        f"below each map: % of the whole weight on {' / '.join(PARTS)}",
    ]
    for place, line in enumerate(lines):
        write(sheet, (width + 2 * GAP, 3 * GAP + place * (LETTERS + GAP)), line)
    for column, (layer, head) in enumerate(heads):
        write(sheet, (WORDS + column * (width + GAP), MAP + 2 * GAP), f"layer {layer}, head {head}")


def pale_of(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image, resized to (columns, rows), in RGB of light greys, on which any colour shows."""
    return image.resize(size).convert("L").point(lambda level: 170 + level // 3).convert("RGB")


def heat_map(pale: Image.Image, weight_UW: np.ndarray) -> Image.Image:
    """Colour the patches of an RGB image by their weight: relative to the largest, times the share of all of them
    together.

    So a map in which every patch has next to no weight stays pale.
    """
    level_UW = weight_UW / weight_UW.max() * weight_UW.sum()
    level = Image.fromarray((level_UW * 255).round().clip(0, 255).astype(np.uint8))
    coloured = pale.copy()
    coloured.paste(HEAT, (0, 0), level.resize(pale.size, Image.Resampling.NEAREST))
    return coloured


def _shares(sheet, shares, place, width):
    """Draw a bar of the shares, and write them beneath in percent."""
    (left, top), pen, done = place, ImageDraw.Draw(sheet), 0.0
    for share, colour in zip(shares, SHARES):
        pen.rectangle((left + done * width, top, left + (done + share) * width, top + BAR), fill=colour)
        done += share
    write(sheet, (left, top + BAR + 2), " / ".join(f"{100 * share:.0f}" for share in shares))


def write(sheet, place, text, colour="black"):
    """Write a text, as `npgemma.files.foreign.shown` shows it, in a font that has its letters."""
    text = shown(text, 80)
    font, _ = font_for(text, LETTERS)
    ImageDraw.Draw(sheet).text(place, text, font=font, fill=colour)
