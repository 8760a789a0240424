"""An answer: what it says, as values, as a drawing, and as notebooks show it."""

import html
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from npgemma.answer import Detection, as_json
from npgemma.errors import InputError
from npgemma.files.foreign import escaped, shown
from npgemma.files.images import ADVICE, KIND, image_name, open_image, upright_rgb
from npgemma.files.reading import reading
from npgemma.image import AnyImage


@dataclass(frozen=True)
class Generation:
    """An answer to one prompt about one image. It keeps no image; in a notebook it shows its text and boxes.

    Parameters
    ----------
    text : str
    token_ids : list of int
    finish_reason : str or None
        ``stop`` (the model ended its answer), ``length`` (``max_new_tokens`` were reached) or ``context`` (the model's
        context was full); None while the answer grows.
    objects : list of npgemma.answer.Detection
        The objects that the answer names: boxes in pixels of the image, and masks.
    timings : dict of str to float
        Seconds: ``load`` (of the model, once), ``vision``, ``prefill`` (from there to the first token), and
        ``seconds_per_token`` of each further token of this answer (None if there was none).
    prompt : str
        As it was given.
    image_size : (int, int) or None
        Columns and rows of the image as a person sees it, in whose pixels boxes are; of several images, the first.
    checkpoint : str
        The path that the model was loaded from.
    """

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    objects: list[Detection] = field(default_factory=list)
    timings: dict[str, float | None] = field(default_factory=dict)
    prompt: str = ""
    image_size: tuple[int, int] | None = None
    checkpoint: str = ""

    def to_dict(self, image: str | list[str] | None = None) -> dict[str, Any]:
        """Return the answer as plain values that JSON can hold: the object that ``npgemma --json`` prints.

        Its keys are ``image``, which is what the image is called (the command says its path, or the paths of several),
        and the attributes; each of the ``objects`` is that of `npgemma.answer.as_json`.
        """
        return {"image": image} | vars(self) | {"objects": [as_json(detection) for detection in self.objects]}

    def draw(self, image: AnyImage) -> Image.Image:
        """Draw boxes, masks and labels on a copy of the image that was asked about, as ``npgemma --annotate`` does.

        The image is given as for `npgemma.image.load_image`; a small one is enlarged, so that labels can be read.
        InputError if it cannot be read, or has another size than the image that was asked about.
        """
        from npgemma.command.annotate import annotate  # only those who draw need it

        with reading(None, KIND, ADVICE, name=image_name(image)):
            upright = upright_rgb(open_image(image))
        if self.image_size not in (None, upright.size):
            expected, found = (f"{columns} x {rows}" for columns, rows in (self.image_size, upright.size))
            raise InputError(f"the answer is about an image of {expected} pixels, found one of {found}: give that one")
        return annotate(upright, self.objects)

    def _repr_html_(self) -> str:
        """Return the text and a table of the boxes, which notebooks show."""
        boxes = [[shown(each.label, 80), *(f"{edge:.0f}" for edge in each.box)] for each in self.objects]
        table = [["object", "left", "top", "right", "bottom"], *boxes] if boxes else []
        rows = "".join(f"<tr><td>{'</td><td>'.join(map(html.escape, row))}</td></tr>" for row in table)
        text = html.escape(escaped(self.text, kept="\n"))
        return f'<p style="white-space: pre-wrap">{text}</p><table>{rows}</table>'
