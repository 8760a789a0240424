"""The whole model on the arrays of one run: a card for each stage, with its shape and a thumbnail of its values."""

import base64
import html
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from npgemma.explain.bundle import texts
from npgemma.explain.seen_image import as_seen
from npgemma.explain.thumbnails import tinted
from npgemma.explain.token_names import text_of
from npgemma.files.foreign import escaped

# In units of the drawing: a card with the space around it, and the square or rectangle of its thumbnail.
WIDTH, HEIGHT, THUMBNAIL = 124, 156, (14, 30, 92, 80)
# Each stage, the section of the page that shows more of it, and the array that it hands over.
STAGES = {
    "image": ("image", "encode_image.0/pixels_BYXC"),
    "patches": ("image", "encode_image.0/encode.0/embed_patches.0/patch_BTCyx"),
    "siglip": ("image", "encode_image.0/encode.0/features_BTD"),
    "projector": ("sequence", "encode_image.0/project.0/image_BPD"),
    "sequence": ("sequence", "prefill.0/x_BSD"),
    "gemma": ("attention", "prefill.0/final_BSD"),
    "logits": ("choice", "prefill.0/logit_BV"),
    "token": ("lens", None),
    "box": ("boxes", None),
}
STYLE = """.card{fill:var(--card,#fff);stroke:var(--soft,#565b6b)}
.title{font:600 14px system-ui,sans-serif;fill:var(--ink,#1d1f27)}
.about{font:11px system-ui,sans-serif;fill:var(--soft,#565b6b)}
.word{font:600 15px ui-monospace,monospace;fill:var(--ink,#1d1f27)}
.line{stroke:#808080;fill:none}.box{stroke:#000;fill:none;stroke-width:3}.inner{stroke:#ffd84d;stroke-width:1.2}"""


@dataclass(frozen=True)
class Stage:
    """One card: what it links to, what a screen reader says, and its drawing, `WIDTH` by `HEIGHT`."""

    name: str
    section: str
    label: str
    drawing: str


def stages(inference):
    """Return the stages of an inference.

    Parameters
    ----------
    inference : npgemma.explain.inference.Inference

    Returns
    -------
    list of Stage
    """
    return [_stage(inference, name, *where) for name, where in STAGES.items()]


def figure(cards, columns):
    """Return an SVG file of the stages, so many in a row."""
    rows = -(-len(cards) // columns)
    drawn = "\n".join(
        f'<g transform="translate({i % columns * WIDTH} {i // columns * HEIGHT})">{card.drawing}</g>'
        for i, card in enumerate(cards)
    )
    size = f'width="{columns * WIDTH}" height="{rows * HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{drawn}\n</svg>\n'


def links(cards):
    """Return the stages as items of an HTML list, each a link to its section."""
    return f"<style>{STYLE}</style>" + "\n".join(
        f'<li><a href="#{card.section}" data-stage="{card.name}"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(card.label)}">{card.drawing}</svg></a></li>'
        for card in cards
    )


def _stage(inference, name, section, array):
    """Return one stage."""
    said = texts()
    title, note = said[f"stage.{name}.title"], said[f"stage.{name}.note"]
    config, found = inference.model.config, inference.answer.objects
    note = note.format(vision=config.vision.layers, text=config.text.layers, tokens=inference.tokens)
    if array:
        shape = inference.recording.summaries[array].shape[1:]
        about, drawn = " \N{MULTIPLICATION SIGN} ".join(map(str, shape)), _thumbnail(inference, name, array)
    elif name == "box" and found:
        about, drawn = found[0].label, _square(inference) + "".join(map(_box(inference), found))
    else:
        about, drawn = _token(inference)
    about = _short(about, 17)
    arrow = "" if name == "box" else f'<path class="line" d="M{WIDTH - 8} 72h7m-4 -4l4 4l-4 4"/>'
    return Stage(name, section, f"{title}: {about}, {note}", _card(title, drawn, about, note) + arrow)


def _short(text, most):
    """Return a text from outside as a card shows it."""
    text = escaped(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _card(title, drawn, about, note):
    """Draw a card."""
    middle, bottom = WIDTH / 2 - 2, HEIGHT - 8
    lines = (("title", 20, title), ("about", bottom - 24, about), ("about", bottom - 9, note))
    said = "".join(
        f'<text class="{kind}" x="{middle}" y="{y}" text-anchor="middle">{html.escape(text)}</text>'
        for kind, y, text in lines
    )
    frame = f'<rect class="card" x="4" y="2" width="{WIDTH - 12}" height="{bottom}" rx="8"/>'
    return f"{frame}{drawn}{said}"


def _thumbnail(inference, name, array):
    """Draw an array: the image as such, patches with lines between them, all others in colours."""
    if name == "image":
        return _square(inference)
    if name == "patches":
        left, top, side = _place()
        step = side / inference.grid
        lines = "".join(
            f"M{left + i * step:.1f} {top}v{side}M{left} {top + i * step:.1f}h{side}" for i in range(inference.grid + 1)
        )
        return f'{_square(inference)}<path class="line" d="{lines}"/>'
    return _picture(tinted(inference.recording.summaries[array].thumbnail), "PNG", THUMBNAIL)


def _place():
    """Return where a square image lies: left, top, side."""
    left, top, width, height = THUMBNAIL
    return left + (width - height) // 2, top, height


def _square(inference):
    """Draw the square that the model sees."""
    left, top, side = _place()
    pixels_YXC = inference.recording.whole[STAGES["image"][1]][0]
    seen = Image.fromarray(as_seen(pixels_YXC, inference.model.preprocessing)).resize((2 * side, 2 * side))
    frame = f'<rect class="line" x="{left}" y="{top}" width="{side}" height="{side}"/>'
    return _picture(seen, "JPEG", (left, top, side, side)) + frame


def _picture(image, kind, place):
    """Draw an image at a place: left, top, width, height."""
    file = io.BytesIO()
    image.save(file, kind, optimize=True)
    x, y, width, height = place
    return (
        f'<image x="{x}" y="{y}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'style="image-rendering:{"auto" if kind == "JPEG" else "pixelated"}" '
        f'href="data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"/>'
    )


def _box(inference):
    """Return how a detection's box is drawn on the square."""
    (left, top, side), (columns, rows) = _place(), inference.image.size

    def drawn(detection):
        x, right = (left + edge / columns * side for edge in detection.box[::2])
        y, bottom = (top + edge / rows * side for edge in detection.box[1::2])
        place = f'x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{bottom - y:.1f}"'
        return f'<rect class="box" {place}/><rect class="box inner" {place}/>'

    return drawn


def _token(inference):
    """Return the probability of the answer's first token, and draw the token."""
    logit_V, chosen = inference.logits(0), inference.answer.token_ids[0]
    share = np.exp(logit_V[chosen] - np.logaddexp.reduce(logit_V))
    word = html.escape(_short(text_of(inference.model.tokenizer, chosen).strip(), 10))
    return f"{100 * share:.1f} %", f'<text class="word" x="{WIDTH / 2 - 2}" y="76" text-anchor="middle">{word}</text>'
