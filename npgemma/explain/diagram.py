"""The whole model on the arrays of one run: a card for each stage, with its shape and a thumbnail of its values."""

import base64
import html
import io

import numpy as np
from PIL import Image

from npgemma.explain.bundle import texts
from npgemma.explain.seen_image import as_seen
from npgemma.explain.thumbnails import tinted
from npgemma.explain.token_names import text_of
from npgemma.files.foreign import escaped

# In units of the drawing: a card with the space around it; left, top, width and height of a thumbnail and of the image.
WIDTH, HEIGHT, THUMBNAIL, SQUARE = 124, 156, (14, 30, 92, 80), (20, 30, 80, 80)
# Each stage, the section of the page that shows more of it, and the array that it hands over.
STAGES = {
    "image": ("image", "encode_image.0/pixels_BYXC"),
    "patches": ("image", "encode_image.0/encode.0/embed_patches.0/patch_BTCyx"),
    "siglip": ("image", "encode_image.0/encode.0/features_BTD"),
    "projector": ("sequence", "encode_image.0/project.0/image_BPD"),
    "sequence": ("sequence", "prefill.0/x_BSD"),
    "gemma": ("attention", "prefill.0/final_BSD"),
    "logits": ("lens", "prefill.0/logit_BV"),
    "token": ("choice", None),
    "box": ("boxes", None),
}
STYLE = """<style>.card{fill:var(--card,#fff);stroke:var(--soft,#565b6b)}
.title{font:600 14px system-ui,sans-serif;fill:var(--ink,#1d1f27)}
.about{font:11px system-ui,sans-serif;fill:var(--soft,#565b6b)}
.word{font:600 15px ui-monospace,monospace;fill:var(--ink,#1d1f27)}
.line{stroke:#808080;fill:none}.box{stroke:#000;fill:none;stroke-width:3}.inner{stroke:#ffd84d;stroke-width:1.2}</style>
"""


def figure(inference, columns):
    """Return an SVG file of the stages, so many in a row."""
    places = [(i % columns * WIDTH, i // columns * HEIGHT) for i in range(len(STAGES))]
    drawn = [
        f'<g transform="translate({x} {y})">{_card(inference, name)[1]}</g>\n' for (x, y), name in zip(places, STAGES)
    ]
    size = f'width="{columns * WIDTH}" height="{places[-1][1] + HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{STYLE}{"".join(drawn)}</svg>\n'


def links(inference):
    """Return the stages as items of an HTML list, each a link to its section."""
    items = STYLE
    for name, (section, _) in STAGES.items():
        label, drawn = _card(inference, name)
        items += f'<li><a href="#{section}" data-stage="{name}"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        items += f'aria-label="{html.escape(label)}">{drawn}</svg></a></li>\n'
    return items


def _card(inference, name):
    """Return what a screen reader says of a stage, and its card: `WIDTH` by `HEIGHT`."""
    said, config, found, array = texts(), inference.model.config, inference.answer.objects, STAGES[name][1]
    title = said[f"stage.{name}.title"]
    numbers = {"vision": config.vision.layers, "text": config.text.layers, "tokens": inference.tokens}
    numbers["padding"] = config.text.vocabulary - inference.model.tokenizer.size
    note = said[f"stage.{name}.note"].format(**numbers)
    if array:
        about = " \N{MULTIPLICATION SIGN} ".join(map(str, inference.recording.summaries[array].shape[1:]))
        drawn = _thumbnail(inference, name, array)
    elif name == "box" and found:
        about = ", ".join(each.label for each in found)
        drawn = _square(inference) + "".join(_box(each.box, inference) for each in found)
    else:
        about, drawn = _token(inference)
    about = _short(about, 17)
    drawn += _text("title", 20, title) + _text("about", HEIGHT - 32, about) + _text("about", HEIGHT - 17, note)
    drawn += "" if name == "box" else f'<path class="line" d="M{WIDTH - 8} 72h7m-4 -4l4 4l-4 4"/>'
    frame = f'<rect class="card" x="4" y="2" width="{WIDTH - 12}" height="{HEIGHT - 8}" rx="8"/>'
    return f"{title}: {about}, {note}", frame + drawn


def _text(kind, y, text):
    """Write a text in the middle of a card."""
    return f'<text class="{kind}" x="{WIDTH / 2 - 2}" y="{y}" text-anchor="middle">{html.escape(text)}</text>'


def _short(text, most):
    """Return a text from outside as a card shows it."""
    text = escaped(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _thumbnail(inference, name, array):
    """Draw an array: the image as such, patches with lines between them, all others in colours."""
    if name not in ("image", "patches"):
        return _picture(tinted(inference.recording.summaries[array].thumbnail), "PNG", THUMBNAIL)
    left, top, side, _ = SQUARE
    places = np.linspace(0, side, inference.grid + 1 if name == "patches" else 2)
    lines = "".join(f"M{left + x:.1f} {top}v{side}M{left} {top + x:.1f}h{side}" for x in places)
    return f'{_square(inference)}<path class="line" d="{lines}"/>'


def _square(inference):
    """Draw the square that the model sees."""
    seen = as_seen(inference.recording.whole[STAGES["image"][1]][0], inference.model.preprocessing)
    return _picture(Image.fromarray(seen).resize((160, 160)), "JPEG", SQUARE)


def _picture(image, kind, place):
    """Draw an image at a place: left, top, width, height."""
    file = io.BytesIO()
    image.save(file, kind, optimize=True)
    content = base64.b64encode(file.getvalue()).decode()
    style = 'preserveAspectRatio="none" style="image-rendering:pixelated"'
    return f'<image {_at(*place)} {style} href="data:image/{kind.lower()};base64,{content}"/>'


def _at(x, y, width, height):
    """Return where something is drawn."""
    return f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'


def _box(box, inference):
    """Draw a box on the square."""
    scale = SQUARE[2] / np.array(2 * inference.image.size)
    left, top, right, bottom = np.array(box) * scale + 2 * SQUARE[:2]
    place = _at(left, top, right - left, bottom - top)
    return f'<rect class="box" {place}/><rect class="box inner" {place}/>'


def _token(inference):
    """Return the probability of the answer's first token, and draw the token."""
    logit_V, chosen = inference.logits(0), inference.answer.token_ids[0]
    share = np.exp(logit_V[chosen] - np.logaddexp.reduce(logit_V))
    return f"{100 * share:.1f} %", _text("word", 76, _short(text_of(inference.model.tokenizer, chosen).strip(), 10))
