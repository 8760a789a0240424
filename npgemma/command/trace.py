"""``python cli.py trace``: write every named array of an answer to a file, or list them."""

import argparse
import contextlib
import fnmatch
import json
import re
import sys

from npgemma.axes import suffix
from npgemma.backward.answers import batch_of, gradients
from npgemma.backward.names import forward_name
from npgemma.command import prepare
from npgemma.command.arguments import add_backend, add_question, add_sampling, mistake
from npgemma.command.progress import Progress
from npgemma.errors import InputError
from npgemma.files.reading import naming
from npgemma.files.writing import replacing
from npgemma.params import leaves
from npgemma.porting import given_tokens
from npgemma.porting.bounds import budget_of
from npgemma.probe.manifest import Manifest, checkpoint_hash
from npgemma.probe.recording import record

SUMMARY = "Write every named array of an answer to a safetensors file."


def add_arguments(parser):
    """Declare the command's arguments."""
    add_question(parser)
    add_backend(parser)
    add_sampling(parser, max_new_tokens=8)
    parser.add_argument("--out", metavar="FILE", help="safetensors file to write")
    parser.add_argument(
        "--list", action="store_true",
        help="write no file: print name, axes, shape and dtype of each array that it would hold, in the order "
        "of the data flow",
    )  # fmt: skip
    parser.add_argument("--only", metavar="PATTERN", default="*", help="keep names that match, such as '*/block.3/*'")
    parser.add_argument(
        "--steps", metavar="FIRST:LAST", type=steps, default=(0, sys.maxsize),
        help="of the answer's steps keep only these, counted from 0, LAST left out; what precedes the steps is kept",
    )  # fmt: skip
    parser.add_argument(
        "--force-ids", metavar="FILE",
        help="take the answer's tokens, as another program chose them, from a file: one id a line, or 'token_ids' of a "
        "file of logits",
    )  # fmt: skip
    parser.add_argument(
        "--mistake", type=mistake, metavar="ID",
        help="make a known mistake of ports on purpose, to see what compare says; diagnose --list names them",
    )  # fmt: skip
    parser.add_argument("--manifest", metavar="FILE", help="write the trace's manifest as JSON too")
    parser.add_argument("--backward", action="store_true", help="write the gradients of an answer's loss instead")
    parser.add_argument("--answer", metavar="TEXT", help="that answer (default: the model's, up to --max-new-tokens)")


def steps(word):
    """Read a range of steps: ``2:5`` means 2, 3 and 4; an end that is left out is open."""
    ends = re.fullmatch(r"(\d*):(\d*)", word)
    if not ends:
        raise argparse.ArgumentTypeError(f"should be a range such as 2:5, found '{word}'")
    return int(ends[1] or 0), int(ends[2] or sys.maxsize)


def run(options):
    """Write the trace, or list its arrays."""
    from conversion.safetensors_file import Spool

    _check_outputs(options)
    settings = prepare.sampling(options)
    prepare.backend_of(options)
    ids = given_tokens.read_ids(options.force_ids) if options.force_ids is not None else None
    spool, progress = _Listing() if options.list else Spool(options.out), Progress()
    first, last = options.steps

    def sink(name, array):
        step = re.match(r"step\.(\d+)/", name)
        if step is None or first <= int(step[1]) < last:
            spool.add(name, array)

    with prepare.mistake(options):
        path, image = prepare.image(options)
        model = prepare.load(options, progress)
        if options.backward:
            return _backward(options, spool, model, image, settings)
        manifest = Manifest(model.params)
        with record(options.only, sink, manifest.watch):
            if ids is None:
                answer = model.generate(image, options.prompt, **settings)
            else:
                with naming(options.force_ids):
                    answer = given_tokens.generation(model, image, options.prompt, ids)
    if not spool.entries:
        raise InputError(f"no array matches --only '{options.only}': names look like step.0/logit_BV")
    if options.list:
        _print(spool.entries, options.json)
        return 0
    name = path if isinstance(path, str) else ", ".join(path)
    about = {"image": name, "prompt": options.prompt, "backend": options.backend, "dtype": options.dtype}
    text = manifest.as_json(
        {name: dtype for name, dtype, _ in spool.entries},
        budget_of,
        checkpoint=checkpoint_hash(model.params),
        **about,
        ids=given_tokens.prompt_ids(model, options.prompt),
        answer=answer.token_ids,
    )
    with contextlib.ExitStack() as files:
        if options.manifest is not None:
            files.enter_context(replacing(options.manifest)).write(text.encode())
        spool.close({**about, "token_ids": json.dumps(answer.token_ids), "manifest": text})
    print(f"{len(spool.entries)} arrays of '{answer.text}' written to {options.out}", file=sys.stderr)
    if options.json:
        about = answer.to_dict(path)
        print(json.dumps(about | {"out": options.out, "arrays": len(spool.entries)}))
    return 0


def _backward(options, spool, model, image, settings):
    """Write the gradients of an answer's loss under the names that arrays have in a forward trace, and the weights'."""
    answer = options.answer
    if answer is None:
        answer = model.generate(image, options.prompt, **settings).token_ids
    batch = batch_of(model, given_tokens.pixels_of(image), [options.prompt], [answer])

    def sink(name, array):
        if name and fnmatch.fnmatchcase(name, options.only):
            spool.add(name, array)

    with record(sink=lambda name, array: sink(forward_name(name, model.config), array)):
        loss, _, dp = gradients(batch, model.params, model.config)
    for name, axes, dweight in leaves(dp):
        sink(f"{name}_{axes}", dweight)
    if not spool.entries:
        raise InputError(f"no gradient matches --only '{options.only}': names look like logits.0/x_BSD")
    if options.list:
        _print(spool.entries, options.json)
    else:
        ids = batch.ids_BT[batch.answer_BT].tolist()
        spool.close({"prompt": options.prompt, "token_ids": json.dumps(ids), "loss": str(loss)})
        print(f"{len(spool.entries)} gradients of a loss of {loss:.6g} written to {options.out}", file=sys.stderr)
    return 0


def _check_outputs(options):
    """Refuse to write a trace nowhere, or to list one into files."""
    if options.list and (options.out, options.manifest) != (None, None):
        raise InputError("--list writes no file: leave out --out and --manifest, or leave out --list")
    if not options.list and options.out is None:
        raise InputError("expected --out FILE, a file to write the trace to, or --list to list its arrays")
    if options.answer is not None and not options.backward:
        raise InputError("--answer is the right answer whose loss --backward differentiates: add --backward")
    if options.backward and {options.backend, options.mistake, options.force_ids, options.manifest} != {"numpy", None}:
        raise InputError("--backward is NumPy's alone: leave out --backend, --mistake, --force-ids and --manifest")


class _Listing:
    """Takes arrays as a spool does, but keeps only their names, dtypes and shapes."""

    def __init__(self):
        self.entries = []

    def add(self, name, array):
        """Take an array."""
        from conversion.safetensors_file import WORDS

        self.entries.append((name, WORDS[array.dtype.name], array.shape))


def _print(entries, as_objects):
    """Print name, axes, shape and dtype of each array, as lines or as one JSON array of objects."""
    rows = [
        {"name": name, "axes": suffix(name.rpartition("/")[2]), "shape": list(shape), "dtype": dtype}
        for name, dtype, shape in entries
    ]
    if as_objects:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['axes']:6} {' x '.join(map(str, row['shape'])):>24} {row['dtype']:5} {row['name']}")
