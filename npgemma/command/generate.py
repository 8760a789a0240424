"""``python cli.py``: answer a prompt about images."""

import json
import sys

from npgemma.answer import MASK_TOKENS, mask_lengths
from npgemma.answer import as_json as object_as_json
from npgemma.command import prepare
from npgemma.command.annotate import (
    annotate,
    check_image_name,
    check_mask_folder,
    font_size,
    save_image,
    write_masks,
)
from npgemma.command.arguments import add_backend, add_question, add_sampling, add_static
from npgemma.command.fonts import note_missing, open_font
from npgemma.command.progress import Progress
from npgemma.errors import InputError
from npgemma.image import open_image, upright_rgb

SUMMARY = "Answer a prompt about images."


def add_arguments(parser):
    """Declare the command's arguments."""
    add_question(parser)
    add_backend(parser)
    add_static(parser)
    add_sampling(parser, max_new_tokens=100)
    parser.add_argument("--annotate", metavar="FILE", help="image to write, with the answer's boxes and masks")
    parser.add_argument("--font", metavar="FILE", help="font of the labels that --annotate writes")
    parser.add_argument("--mask-dir", metavar="DIR", help="folder to write the answer's masks to, as images")


def run(options):
    """Print the answer for every image."""
    progress = Progress()
    if options.annotate is not None:
        check_image_name(options.annotate)
    if options.font is not None:
        open_font(options.font)
    if options.mask_dir is not None:
        check_mask_folder(options.mask_dir, options.image or [])
    if options.images_per_prompt > 1 and (options.annotate is not None or options.mask_dir is not None):
        raise InputError("--annotate and --mask-dir draw on one image: leave out --images-per-prompt")
    settings = prepare.sampling(options)
    prepare.backend_of(options)
    images = prepare.images(options, most=1 if options.annotate else None)
    model = prepare.load(options, progress)
    for path, image in images:
        name = path if isinstance(path, str) else ", ".join(path)
        label = f"{name}: " if len(images) > 1 and not options.json else ""
        _answer(model, path, image, options, settings, _Writer(label, progress, quiet=options.json))
    _note_ignored(options)
    return 0


def _answer(model, path, image, options, settings, writer):
    """Print one answer; after an interrupt, the part that is complete."""
    try:
        with writer.progress.layers(model.config):
            answer = model.generate(image, options.prompt, watch=writer.watch, **settings)
        writer.watch(answer)
        _write_drawn(options, path, answer, model)
    finally:
        writer.progress.clear()
        if options.json and writer.generation:
            print(json.dumps(as_json(path, options.prompt, writer.generation)), flush=True)
        elif writer.generation:
            print(flush=True)


def as_json(path, prompt, answer):
    """Return the object that ``--json`` prints.

    Parameters
    ----------
    path : str or list of str
        Of the image; of several, where the prompt is about several.
    prompt : str
    answer : npgemma.Generation

    Returns
    -------
    dict
    """
    return {
        "image": path,
        "prompt": prompt,
        "text": answer.text,
        "token_ids": answer.token_ids,
        "objects": [object_as_json(thing) for thing in answer.objects],
        "timings": answer.timings,
    }


class _Writer:
    """Prints an answer while it grows: after its label, unless it is only to be kept."""

    def __init__(self, label, progress, quiet):
        self.label, self.progress, self.quiet = label, progress, quiet
        self.generation, self.printed = None, 0

    def watch(self, generation):
        """Print what is new."""
        if self.generation is None:
            self.progress.end()
            if not self.quiet:
                print(self.label, end="")
        self.generation = generation
        if not self.quiet:
            print(generation.text[self.printed :], end="", flush=True)
        self.printed = len(generation.text)


def _write_drawn(options, path, answer, model):
    """Write the annotated image and the masks that the options ask for, or note why there are none."""
    if options.annotate and answer.objects:
        image = upright_rgb(open_image(path))
        save_image(annotate(image, answer.objects, options.font), options.annotate)
        note_missing((thing.label for thing in answer.objects), font_size(image.size), options.font)
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
        reason = "the answer was cut off: raise --max-tokens" if cut else f"a mask takes {MASK_TOKENS}"
        return f"the answer has {lengths[-1]} of the {MASK_TOKENS} tokens of a mask, so none was written; {reason}"
    if model.mask_params is None:
        return f"the answer has a mask that cannot be decoded: the checkpoint's folder has no {FILE}"
    return "the answer has a mask without a box, or with codes that are not in the codebook, so none was written"


def _note_ignored(options):
    """Say so when sampling was tuned but not asked for."""
    tuned = {
        "--temperature": options.temperature != 1,
        "--top-p": options.top_p != 1,
        "--top-k": options.top_k is not None,
        "--seed": options.seed is not None,
    }
    ignored = [name for name, is_set in tuned.items() if is_set]
    if ignored and not options.do_sample:
        print(f"note: {', '.join(ignored)} only matter with --do-sample; decoding greedily", file=sys.stderr)
