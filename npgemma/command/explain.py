"""``npgemma explain``: write one HTML page that lays an inference open."""

import json
import sys

from npgemma.command import prepare
from npgemma.command.arguments import add_backend, add_question, add_sampling
from npgemma.command.progress import Progress
from npgemma.errors import InputError
from npgemma.files.writing import replacing

SUMMARY = "Write one HTML page about an answer: what the model saw, where it looked, which tokens it chose among."
PROMPT = "detect red circle ; blue square"


def add_arguments(parser):
    """Declare the command's arguments."""
    add_question(parser)
    # A caption would hide what the mask does.
    parser.set_defaults(prompt=PROMPT)
    add_backend(parser)
    add_sampling(parser, max_new_tokens=100)
    parser.add_argument("--out", metavar="FILE", required=True, help="HTML file to write")


def run(options):
    """Write the page."""
    from npgemma.explain import build

    if options.images_per_prompt > 1:
        raise InputError("explain shows one image: leave out --images-per-prompt")
    settings = prepare.sampling(options, seed=0 if options.seed is None else options.seed)
    prepare.backend_of(options)
    progress = Progress()
    path, image = prepare.image(options)
    # Opened first, so that a file that cannot be written is reported before the work.
    with replacing(options.out) as file:
        model = prepare.load(options, progress)
        original = prepare.original(path, options)
        page = build(model, image, original, options.prompt, settings, _twin(options, model), progress.note).encode()
        file.write(page)
    progress.clear()
    print(f"{options.out}: {len(page) / 1e6:.1f} MB, to be opened in a browser", file=sys.stderr)
    if options.json:
        print(json.dumps({"image": path, "prompt": options.prompt, "out": options.out, "bytes": len(page)}))
    return 0


def _twin(options, model):
    """Return the same weights on the other backend, or None where torch is not installed."""
    from npgemma.porting.backends import twin_of

    if options.backend == "torch":
        return prepare.reference(options, options.dtype)
    try:
        prepare.import_twin()
    except InputError:
        return None
    return twin_of(model)
