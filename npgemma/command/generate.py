"""``npgemma generate``, the default: answer a prompt about images."""

import contextlib
import dataclasses
import json
import sys

from npgemma.answer import MASK_TOKENS, mask_lengths
from npgemma.answer import as_json as object_as_json
from npgemma.command import prepare, views
from npgemma.command.annotate import annotate, font_size
from npgemma.command.arguments import add_backend, add_question, add_sampling, add_static, mistake, positive
from npgemma.command.fonts import note_missing, open_font
from npgemma.command.image_files import check_mask_folder, save_image, write_masks
from npgemma.command.progress import Progress
from npgemma.errors import InputError
from npgemma.files.images import open_image, upright_rgb
from npgemma.machinery.model import IMAGE_MARK, without_image_marks

SUMMARY = "Answer a prompt about images."


def add_arguments(parser):
    """Declare the command's arguments."""
    add_question(parser)
    add_backend(parser)
    add_static(parser)
    add_sampling(parser, max_new_tokens=100)
    parser.add_argument(
        "--batch-size", type=positive, default=1, metavar="N",
        help="answer about N images at once: faster together, but printed only once complete (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--boxes", action="store_true", help="print boxes in pixels after an answer, as on a terminal")
    parser.add_argument("--annotate", metavar="FILE", help="image to write, with the answer's boxes and masks")
    parser.add_argument("--font", metavar="FILE", help="font of the labels that --annotate writes")
    parser.add_argument(
        "--mistake", type=mistake, metavar="ID",
        help="answer with a known mistake of ports made on purpose; diagnose --list names them",
    )  # fmt: skip
    parser.add_argument("--mask-dir", metavar="DIR", help="folder to write the answer's masks to, as images")
    views.add_arguments(parser)


def run(options):
    """Print the answer for every image."""
    progress = Progress()
    views.check(options)
    if options.font is not None:
        open_font(options.font)
    if options.mask_dir is not None:
        check_mask_folder(options.mask_dir, options.image or [])
    if options.images_per_prompt > 1 and (options.annotate is not None or options.mask_dir is not None):
        raise InputError("--annotate and --mask-dir draw on one image: leave out --images-per-prompt")
    settings = prepare.sampling(options)
    prepare.backend_of(options)
    with prepare.mistake(options):
        _answer_all(options, settings, progress)
    _note_unused(options)
    return 0


def _answer_all(options, settings, progress):
    """Print the answers about all images."""
    images = prepare.images(options, most=1 if views.one_image_only(options) else None)
    model = prepare.load(options, progress)
    if options.image_as_seen is not None:
        save_image(views.seen_image(images[0][1], model), options.image_as_seen)
    for first in range(0, len(images), options.batch_size):
        _answer(model, images[first : first + options.batch_size], len(images) > 1, options, settings, progress)


def _answer(model, images, several, options, settings, progress):
    """Print the answers about some images; after an interrupt, the part that is complete.

    One answer is printed while it grows, several once they are complete.
    """
    writers = []
    for path, _ in images:
        name = path if isinstance(path, str) else ", ".join(path)
        writers.append(_Writer(f"{name}: " if several else "", progress, options.json, streams=len(images) == 1))

    def watch(generations):
        """Hand every answer to its writer."""
        for writer, generation in zip(writers, generations):
            writer.watch(generation)

    try:
        prompts = [options.prompt] * len(images)
        # A compiled step runs no Python that could report its blocks.
        blocks = contextlib.nullcontext() if options.static else progress.layers(model.config)
        with views.watching(options, model) as passes, blocks:
            answers = model.generate_batch([image for _, image in images], prompts, watch=watch, **settings)
        watch(answers)
        for row, (writer, answer) in enumerate(zip(writers, answers)):
            writer.candidates = passes.candidates(row, len(answer.token_ids)) if options.top_logits else []
        for (path, image), answer in zip(images, answers):
            _write_drawn(options, path, answer, model)
            if options.show_attention is not None:
                views.write_attention(options, image, answer, passes, model)
    finally:
        progress.clear()
        for (path, _), writer in zip(images, writers):
            writer.end(path, options)


def as_json(path, prompt, answer):
    """Return the object that ``--json`` prints; where the prompt is about several images, with the paths of all."""
    return {
        "image": path,
        "prompt": prompt,
        "text": answer.text,
        "token_ids": answer.token_ids,
        "finish_reason": answer.finish_reason,
        "objects": [object_as_json(detection) for detection in answer.objects],
        "timings": answer.timings,
    }


class _Writer:
    """Prints an answer after its label: while it grows, if it streams; or keeps it to the end."""

    def __init__(self, label, progress, quiet, streams):
        self.label, self.progress, self.streams = label, progress, streams and not quiet
        self.generation, self.printed, self.candidates = None, 0, []

    def watch(self, generation):
        """Take the answer so far, and print what is new."""
        if self.generation is None:
            self.progress.end()
            self._print(self.label)
        self.generation = generation
        self._print(generation.text[self.printed :])
        self.printed = len(generation.text)

    def _print(self, text):
        if self.streams:
            print(text, end="", flush=True)

    def end(self, path, options):
        """Print what is left: the whole answer, a line's end, and the boxes."""
        answer = self.generation
        if answer is None:
            return
        if options.json:
            report = as_json(path, options.prompt, answer)
            if options.top_logits:
                report["top_logits"] = [[dataclasses.asdict(token) for token in place] for place in self.candidates]
            print(json.dumps(report), flush=True)
            return
        print("" if self.streams else self.label + answer.text, flush=True)
        if options.boxes or sys.stdout.isatty():
            for detection in answer.objects:
                print(box_line(detection), flush=True)
        for line in views.candidate_lines(self.candidates):
            print(line, flush=True)


def box_line(detection):
    """Return an object's box in words.

    Examples
    --------
    >>> from npgemma.answer import Detection
    >>> box_line(Detection("red circle", (180.2, 23.9, 324.0, 130.4)))
    '  red circle: left 180, top 24, right 324, bottom 130 (pixels)'
    """
    left, top, right, bottom = (round(edge) for edge in detection.box)
    return f"  {detection.label or 'something'}: left {left}, top {top}, right {right}, bottom {bottom} (pixels)"


def _write_drawn(options, path, answer, model):
    """Write the annotated image and the masks that the options ask for, or note why there are none."""
    if options.annotate and answer.objects:
        image = upright_rgb(open_image(path, options.max_pixels))
        save_image(annotate(image, answer.objects, options.font), options.annotate)
        note_missing((detection.label for detection in answer.objects), font_size(image.size), options.font)
    elif options.annotate:
        print(f"note: the answer names no box, so no image was written{_hint(options, 'detect')}", file=sys.stderr)
    if options.mask_dir and not write_masks(options.mask_dir, path, answer.objects):
        print(f"note: {_why_no_mask(options, answer, model)}", file=sys.stderr)


def _hint(options, task):
    """Return what to ask instead, unless just that was asked."""
    return "" if options.prompt.startswith((task, "segment")) else f": ask '{task} ...'"


def _why_no_mask(options, answer, model):
    """Say why an answer has no mask that could be written."""
    from conversion.codebook import FILE

    lengths = mask_lengths(answer.text)
    if not lengths:
        return f"the answer has no mask, so none was written{_hint(options, 'segment')}"
    if MASK_TOKENS not in lengths:
        cut = answer.finish_reason == "length"
        reason = "the answer was cut off: raise --max-new-tokens" if cut else f"a mask takes {MASK_TOKENS}"
        return f"the answer has {lengths[-1]} of the {MASK_TOKENS} tokens of a mask, so none was written; {reason}"
    if model.mask_params is None:
        return f"the answer has a mask that cannot be decoded: the checkpoint's folder has no {FILE}"
    return "the answer has a mask without a box, or with codes that are not in the codebook, so none was written"


def _note_unused(options):
    """Note settings of sampling that do not matter, and an ``<image>`` in the prompt that only other programs read."""
    tuned = {
        "--temperature": options.temperature not in (0, 1),
        "--top-p": options.top_p != 1,
        "--top-k": options.top_k is not None,
        "--seed": options.seed is not None,
    }
    ignored = [name for name, is_set in tuned.items() if is_set]
    if ignored and not options.do_sample:
        print(f"note: {', '.join(ignored)} only matter with --do-sample; decoding greedily", file=sys.stderr)
    elif ignored and options.temperature == 0:
        print(f"note: {', '.join(ignored)} do not matter at --temperature 0; decoding greedily", file=sys.stderr)
    if IMAGE_MARK in without_image_marks(options.prompt):
        print(
            f"note: {IMAGE_MARK} within a prompt is read as text; in front of it, it stands for the image",
            file=sys.stderr,
        )
