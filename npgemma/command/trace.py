"""``python cli.py trace``: write every named array of an answer to a file."""

import json
import sys

from npgemma.command import prepare
from npgemma.command.arguments import add_backend, add_question, add_sampling
from npgemma.command.generate import as_json
from npgemma.command.progress import Progress
from npgemma.errors import InputError
from npgemma.trace import record

SUMMARY = "Write every named array of an answer to a safetensors file."


def add_arguments(parser):
    """Declare the command's arguments."""
    add_question(parser)
    add_backend(parser)
    add_sampling(parser, max_new_tokens=8)
    parser.add_argument("--out", metavar="FILE", required=True, help="safetensors file to write")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="keep names that match, such as '*/block.3/*'")


def run(options):
    """Write the trace."""
    from conversion.safetensors_file import Spool

    settings = prepare.sampling(options)
    prepare.backend_of(options)
    spool, progress = Spool(options.out), Progress()
    [(path, image)] = prepare.images(options, most=1)
    model = prepare.load(options, progress)
    with record(options.only, spool.add):
        answer = model.generate(image, options.prompt, **settings)
    if not spool.entries:
        raise InputError(f"no array matches --only '{options.only}': names look like step.0/logit_BV")
    name = path if isinstance(path, str) else ", ".join(path)
    about = {"image": name, "prompt": options.prompt, "backend": options.backend, "dtype": options.dtype}
    spool.close({**about, "token_ids": json.dumps(answer.token_ids)})
    print(f"{len(spool.entries)} arrays of '{answer.text}' written to {options.out}", file=sys.stderr)
    if options.json:
        about = as_json(path, options.prompt, answer)
        print(json.dumps(about | {"out": options.out, "arrays": len(spool.entries)}))
    return 0
