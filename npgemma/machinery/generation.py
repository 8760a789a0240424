"""What a model returns: an answer, and the log-probability of an answer that was given."""

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

        Parameters
        ----------
        image : str or list of str, optional
            What the image is called: the command says its path, or the paths of several.

        Returns
        -------
        dict
            ``image`` as given; ``objects`` as a list of `npgemma.answer.as_json`; ``prompt``, ``text``, ``token_ids``,
            ``finish_reason``, ``timings``, ``image_size`` and ``checkpoint`` as the attributes of these names.
        """
        return {
            "image": image,
            "prompt": self.prompt,
            "text": self.text,
            "token_ids": self.token_ids,
            "finish_reason": self.finish_reason,
            "objects": [as_json(detection) for detection in self.objects],
            "timings": self.timings,
            "image_size": self.image_size,
            "checkpoint": self.checkpoint,
        }

    def draw(self, image: AnyImage) -> Image.Image:
        """Return a copy of the image with the boxes, masks and labels, as ``npgemma --annotate`` writes it.

        Parameters
        ----------
        image : str, os.PathLike, bytes, binary file, PIL.Image.Image or uint8 array
            The image that was asked about, as for `npgemma.image.load_image`.

        Returns
        -------
        PIL.Image.Image
            Upright and RGB; a small image is enlarged, so that labels can be read.

        Raises
        ------
        InputError
            If the image cannot be read, or has another size than the one that was asked about.
        """
        from npgemma.command.annotate import annotate  # only those who draw need it

        with reading(None, KIND, ADVICE, name=image_name(image)):
            upright = upright_rgb(open_image(image))
        if self.image_size not in (None, upright.size):
            raise InputError(f"the answer is about an image of {self.image_size} pixels, found one of {upright.size}")
        return annotate(upright, self.objects)

    def _repr_html_(self) -> str:
        """Return the text and a table of the boxes, which notebooks show."""
        cells = [[_safe(shown(each.label, 80)), *(f"{edge:.0f}" for edge in each.box)] for each in self.objects]
        rows = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in cells)
        head = "<tr><th>object</th><th>left</th><th>top</th><th>right</th><th>bottom</th></tr>"
        return f'<p style="white-space: pre-wrap">{_safe(self.text)}</p>' + (rows and f"<table>{head}{rows}</table>")


@dataclass(frozen=True)
class Score:
    """How probable a given answer is.

    Parameters
    ----------
    answer : str
    token_ids : list of int
        The answer's tokens, and the end token ``<eos>``.
    log_probabilities : list of float
        The natural logarithm of each token's probability after those before it, among all rows of the embedding table.
    """

    answer: str
    token_ids: list[int]
    log_probabilities: list[float]

    @property
    def total(self) -> float:
        """The logarithm of the probability that the model gives exactly this answer, and ends."""
        return sum(self.log_probabilities)


def _safe(text: str) -> str:
    return html.escape(escaped(text, kept="\n"))
