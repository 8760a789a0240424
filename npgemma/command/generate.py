"""``npgemma generate``, the default: answer prompts about images."""

import contextlib
import dataclasses
import json
import sys

from npgemma.command import BAD_INPUT, prepare, views
from npgemma.command.arguments import add_backend, add_question, add_sampling, add_static, mistake, positive
from npgemma.command.drawings import write_drawn
from npgemma.command.fonts import open_font
from npgemma.command.image_files import Names, check_folder
from npgemma.command.inputs import batches, flat
from npgemma.command.progress import Progress
from npgemma.errors import InputError

SUMMARY = "Answer prompts about images."


def add_arguments(parser):
    """Declare the command's arguments."""
    add_question(parser)
    add_backend(parser)
    add_static(parser)
    add_sampling(parser, max_new_tokens=100)
    parser.add_argument(
        "--batch-size", type=positive, metavar="N",
        help="compute N answers at once: faster, but printed only when all have ended (default: an image's, up to 8)",
    )  # fmt: skip
    parser.add_argument("--boxes", action="store_true", help="print boxes in pixels, even if not to a terminal")
    optional = {"nargs": "?", "const": True}
    parser.add_argument("--annotate", **optional, metavar="FILE", help="image to write, with the boxes and masks")
    parser.add_argument("--font", metavar="FILE", help="font of the labels that --annotate writes")
    parser.add_argument(
        "--mistake", type=mistake, metavar="ID",
        help="answer with a known mistake of ports, made on purpose; diagnose --list names them",
    )  # fmt: skip
    parser.add_argument("--mask-dir", **optional, metavar="DIR", help="folder for the answer's masks, as images")
    parser.add_argument(
        "--out-dir", metavar="DIR",
        help="folder for several answers: what --annotate, --mask-dir, --show-attention and --save-image-as-seen write "
        "if no name follows them, named like photo-annotated.png and photo-prompt2-1-cat.png",
    )  # fmt: skip
    views.add_arguments(parser)


def run(options):
    """Print all answers; return a status that says whether every image could be read."""
    progress, options.prompts = Progress(), options.prompts or [options.prompt]
    paths = prepare.image_paths(options)
    views.check(options, paths, len(paths) * len(options.prompts))
    if options.font is not None:
        open_font(options.font)
    for folder in {options.mask_dir, options.out_dir} - {None, True}:
        check_folder(folder)
    if options.images_per_prompt > 1 and (options.annotate is not None or options.mask_dir is not None):
        raise InputError("--annotate and --mask-dir draw on one image: leave out --images-per-prompt")
    settings = prepare.sampling(options)
    prepare.backend_of(options)
    try:
        with prepare.mistake(options):
            status = _answer_all(options, paths, settings, progress)
    finally:
        progress.clear()
    _note_unused(options)
    return status


def _answer_all(options, paths, settings, progress):
    """Print the answers to all prompts about all images, in their order, and the errors of images in their places."""
    read, status, model = prepare.image_reader(options), 0, None
    names = Names(flat(paths) if options.out_dir or options.mask_dir else [])

    def read_or_tell(path):
        """Return an image, or the error that it cannot be read."""
        try:
            return read(path)
        except InputError as problem:
            progress.clear()
            print(f"error: {problem}", file=sys.stderr, flush=True)
            return problem

    # The attention is seen of answers that are given alone.
    size = 1 if options.show_attention else options.batch_size or min(len(options.prompts), 8)
    total = len(paths) * len(options.prompts)
    for questions in batches(paths, options.prompts, read_or_tell, size):
        if isinstance(questions[0].image, InputError):
            status = BAD_INPUT
            for question in questions * options.json:
                about = {"image": question.path, "prompt": question.prompt, "error": str(question.image)}
                print(json.dumps(about), flush=True)
            continue
        model = model or prepare.load(options, progress)
        progress.count(questions[0].number, total)
        _answer(model, questions, options, settings, progress, names)
        progress.count(questions[-1].number + 1, total)
    return status


def _answer(model, questions, options, settings, progress, names):
    """Print the answers to some questions; after an interrupt, the part that is complete.

    One answer is printed while it grows, several once they are complete.
    """
    streams = len(questions) == 1 and not options.json
    writers = [_Writer(question, progress, streams) for question in questions]

    def watch(generations):
        """Hand every answer to its writer."""
        if not streams:
            progress.note(f"{max(len(generation.token_ids) for generation in generations)} tokens")
        for writer, generation in zip(writers, generations):
            writer.watch(generation)

    # The answer with the number i of a run draws alike in a batch of any size.
    seed = None if options.seed is None else options.seed + questions[0].number
    images, prompts = [question.image for question in questions], [question.prompt for question in questions]
    if all(image is images[0] for image in images):
        images = images[:1]
    try:
        # A compiled step runs no Python that could report its blocks.
        blocks = contextlib.nullcontext() if options.static else progress.layers(model.config)
        with views.watching(options, model) as passes, blocks:
            answers = model.generate_batch(images, prompts, watch=watch, **settings | {"seed": seed})
        watch(answers)
        progress.end()
        for row, (writer, answer) in enumerate(zip(writers, answers)):
            writer.candidates = passes.candidates(row, len(answer.token_ids)) if options.top_logits else []
        for writer, answer in zip(writers, answers):
            if not options.json:
                writer.end(options)
            writer.files = write_drawn(options, names, writer.question, answer, passes, model)
    finally:
        progress.clear()
        for writer in writers:
            writer.end(options)


class _Writer:
    """Prints an answer after its label: while it grows, if it streams; or keeps it to the end."""

    def __init__(self, question, progress, streams):
        self.question, self.progress, self.streams = question, progress, streams
        self.generation, self.printed, self.candidates, self.files = None, 0, [], []

    def watch(self, generation):
        """Take the answer so far, and print what is new."""
        if self.generation is None and self.streams:
            self.progress.end()
            self._print(self.question.label)
        self.generation = generation
        self._print(generation.text[self.printed :])
        self.printed = len(generation.text)

    def _print(self, text):
        if self.streams:
            print(text, end="", flush=True)

    def end(self, options):
        """Print what is left: the whole answer, a line's end, and the boxes."""
        (answer, self.generation), question = (self.generation, None), self.question
        if answer is None:
            return
        if options.json:
            report = answer.to_dict(question.path)
            if options.top_logits:
                report["top_logits"] = [[dataclasses.asdict(token) for token in place] for place in self.candidates]
            if options.out_dir is not None:
                report["files"] = self.files
            print(json.dumps(report), flush=True)
            return
        print("" if self.streams else question.label + answer.text, flush=True)
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


def _note_unused(options):
    """Note settings of sampling that do not matter."""
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
