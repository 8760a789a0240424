"""The command line: ``python cli.py --help``. Parsing of arguments and printing only."""

import argparse
import json
import os
import sys

COMMANDS = ("trace", "parity", "inspect")
STOPPED, BAD_INPUT, PAST_BOUND, PIPE_CLOSED = 130, 2, 1, 141


def main(arguments=None):
    """Run a command line; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = arguments[0] if arguments and arguments[0] in COMMANDS else "generate"
    # A closed stdout or stderr is None in Python.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    try:
        # A terminal that cannot show a character gets its code instead of an error.
        sys.stdout.reconfigure(errors="backslashreplace")
        options = parser_of(command).parse_args(arguments[command != "generate" :])
        return run(command, options)
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:
        # Python would try to write the rest once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def run(command, options):
    """Run one command, with its errors told in one sentence."""
    # Imported here, so that an interrupt during the imports ends as quietly as any other.
    import numpy as np

    from npgemma import InputError

    action = {"generate": generate, "trace": trace, "parity": parity, "inspect": inspect}[command]
    try:
        # The model itself looks for what is not finite, and names where it comes from.
        with np.errstate(all="ignore"):
            return action(options)
    except InputError as problem:
        print(f"error: {_one_line(problem)}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as problem:
        # Files are opened where their errors are told; what is left is the output, on a full disk mostly.
        print(f"error: cannot write {problem.filename or 'the output'}: {problem.strerror}", file=sys.stderr)
    except MemoryError:
        print("error: not enough memory for this model here; --dtype bfloat16 needs about half", file=sys.stderr)
    return BAD_INPUT


def generate(options):
    """Print the answer for every picture."""
    from npgemma.progress import Progress

    progress = Progress()
    if options.annotate:
        check_picture_name(options.annotate)
    model, pictures = prepare(options, progress, most=1 if options.annotate else None)
    model.params = progress.watch(model.params)
    for path, pixels in pictures:
        label = f"{path}: " if len(pictures) > 1 and not options.json else ""
        writer = Writer(label, progress, quiet=options.json)
        try:
            model.generate(pixels, watch=writer.watch, **settings(options))
            writer.finish()
            if options.annotate:
                write_annotated(options.annotate, path, writer.generation.text)
        finally:
            progress.clear()
            # Also after an interrupt: what there is of the answer is printed.
            if options.json and writer.generation:
                print(json.dumps(as_json(path, options.prompt, writer.generation)), flush=True)
            elif writer.generation:
                print(flush=True)
    note_ignored_settings(options)
    return 0


def trace(options):
    """Write every named array of an answer to a file."""
    from conversion.safetensors_file import Spool
    from npgemma import record
    from npgemma.progress import Progress

    spool, progress = Spool(options.out), Progress()
    model, pictures = prepare(options, progress, most=1)
    [(path, pixels)] = pictures
    with record(options.only, spool.add):
        answer = model.generate(pixels, **settings(options))
    if not spool.entries:
        raise_input_error(f"no array matches --only '{options.only}': names look like prefill.0/decode.0/block.0/x_BTD")
    about = {"image": path, "prompt": options.prompt, "backend": options.backend, "dtype": options.dtype}
    spool.close({**about, "token_ids": json.dumps(answer.token_ids)})
    print(f"{len(spool.entries)} arrays of '{answer.text}' written to {options.out}", file=sys.stderr)
    if options.json:
        print(json.dumps(as_json(path, options.prompt, answer) | {"out": options.out, "arrays": len(spool.entries)}))
    return 0


def parity(options):
    """Run both backends on one input and print how far they are apart."""
    import npgemma
    from npgemma.parity import BOUNDS, DEVICE_FACTOR, Comparison
    from npgemma.progress import Progress
    from npgemma.tables import parity_table

    torch_ref = import_twin()
    progress = Progress()
    options.backend = "numpy"
    # Both backends must draw alike.
    options.seed = 0 if options.seed is None else options.seed
    model, pictures = prepare(options, progress, most=1)
    twin_params = torch_ref.to_torch(model.params, model.dtype, options.device)
    twin = torch_ref.Model(twin_params, model.config, model.folder, model.dtype, device=options.device)
    [(path, pixels)] = pictures
    with npgemma.record() as expected:
        answer = model.generate(pixels, **settings(options))
    comparison = Comparison(expected, BOUNDS[options.dtype] * DEVICE_FACTOR[options.device])
    with npgemma.record(sink=comparison.sink):
        twin_answer = twin.generate(pixels, **settings(options))
    report = comparison.report(answer.token_ids, twin_answer.token_ids)
    about = {"image": path, "prompt": options.prompt, "dtype": options.dtype, "device": options.device}
    print(json.dumps(about | report) if options.json else parity_table(about | report), flush=True)
    return 0 if report["passed"] else PAST_BOUND


def inspect(options):
    """Print what a checkpoint holds, without loading it."""
    from conversion.folder import describe
    from npgemma import embedded_checkpoint
    from npgemma.tables import inspect_table

    report = describe(str(embedded_checkpoint()) if options.checkpoint is None else options.checkpoint)
    print(json.dumps(report) if options.json else inspect_table(report), flush=True)
    return 0


def prepare(options, progress, most=None):
    """Read the pictures, then load the model: what is quickly found wrong is told before the long work.

    Returns
    -------
    (Model, list of (path, pixels_BYXC))
    """
    import npgemma
    from conversion.folder import check_folder
    from npgemma.image import load_pixels
    from npgemma.model import check_settings

    if options.only_cpu:
        options.device = "cpu"
    if options.backend == "torch" or options.command == "parity":
        import_twin().check_device(options.device)
    elif options.device != "cpu":
        raise_input_error("NumPy runs on the CPU: use --backend torch with --device cuda")
    check_settings(options.max_tokens, options.temperature, options.top_p, options.top_k, options.seed)
    folder = str(npgemma.embedded_checkpoint()) if options.checkpoint is None else options.checkpoint
    paths = options.image or [str(npgemma.example_picture())]
    if most and len(paths) > most:
        raise_input_error(f"this command takes one picture, found {len(paths)}")
    size = check_folder(folder).vision.image_size
    pictures = [(path, load_pixels(path, size)) for path in paths]

    def report(done, total):
        progress.report("loading the weights", done, total)

    if options.backend == "torch":
        model = import_twin().load(folder, options.dtype, options.device, report)
    else:
        model = npgemma.load(folder, options.dtype, report)
    progress.clear()
    return model, pictures


class Writer:
    """Prints an answer while it grows.

    Parameters
    ----------
    label : str
        Printed before it.
    progress : Progress
        Cleared when the first text comes.
    quiet : bool
        Only keep the answer.
    """

    def __init__(self, label, progress, quiet):
        self.label, self.progress, self.quiet = label, progress, quiet
        self.generation, self.printed = None, 0

    def watch(self, generation):
        """Print what is new."""
        if self.generation is None:
            self.progress.clear()
            self.progress.active = False
            if not self.quiet:
                print(self.label, end="")
        self.generation = generation
        if not self.quiet:
            print(generation.text[self.printed :], end="", flush=True)
        self.printed = len(generation.text)

    def finish(self):
        """Print what was held back for characters that never became complete."""
        self.watch(self.generation)


def import_twin():
    """Import the PyTorch backend, or say what is missing."""
    try:
        import torch_ref.model

        return torch_ref.model
    except ModuleNotFoundError as problem:
        if problem.name != "torch":
            raise
        raise_input_error("the torch backend needs PyTorch: pip install torch, or use --backend numpy")


def raise_input_error(message):
    """Raise the project's error for wrong input; importing it is put off like all imports here."""
    from npgemma import InputError

    raise InputError(message) from None


def settings(options):
    """Return the arguments of ``Model.generate``."""
    names = ("prompt", "max_tokens", "do_sample", "temperature", "top_p", "top_k", "seed")
    return {name: getattr(options, name) for name in names}


def note_ignored_settings(options):
    """Say so when sampling was tuned but not asked for."""
    tuned = {
        "--temperature": options.temperature != 1,
        "--top-p": options.top_p != 1,
        "--top-k": options.top_k is not None,
    }
    ignored = [name for name, set_ in (tuned | {"--seed": options.seed is not None}).items() if set_]
    if ignored and not options.do_sample:
        print(f"note: {', '.join(ignored)} only matter with --do-sample; decoding greedily", file=sys.stderr)


def as_json(path, prompt, generation):
    """Return the object that ``--json`` prints."""
    return {
        "image": path,
        "prompt": prompt,
        "text": generation.text,
        "token_ids": generation.token_ids,
        "objects": [{"label": thing.label, "box": thing.box} for thing in objects_in(path, generation.text)[1]],
        "timings": generation.timings,
    }


def objects_in(path, text):
    """Return a picture as a person sees it, and the things in it that an answer names."""
    from npgemma.answer import find_objects
    from npgemma.image import open_picture, upright_rgb

    if "<loc" not in text:
        return None, []
    picture = upright_rgb(open_picture(path))
    return picture, find_objects(text, picture.size)


def check_picture_name(path):
    """Refuse early to write a picture that could not be written later."""
    from PIL import Image

    ending = os.path.splitext(path)[1].lower()
    known = Image.registered_extensions()
    if known.get(ending) not in Image.SAVE:
        raise_input_error(f"--annotate should name a picture such as out.png, found '{path}'")
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or "."):
        raise_input_error(f"cannot write '{path}': its folder is missing, or it is a folder itself")


def write_annotated(out, path, text):
    """Draw the boxes of an answer on its picture."""
    from PIL import Image

    from conversion.safetensors_file import replacing
    from npgemma.answer import annotate

    picture, objects = objects_in(path, text)
    if not objects:
        print("note: the answer names no box, so no picture was written: ask 'detect ...'", file=sys.stderr)
        return
    with replacing(out) as file:
        annotate(picture, objects).save(file, Image.registered_extensions()[os.path.splitext(out)[1].lower()])


def parser_of(command):
    """Return the parser of one command."""
    about = {
        "generate": "Answer a prompt about pictures. Other commands: " + ", ".join(COMMANDS) + ".",
        "trace": "Write every named array of an answer to a safetensors file.",
        "parity": "Run both backends, whatever --backend says, on one input; exit with 1 past a bound.",
        "inspect": "Show a checkpoint's sizes and tensors without loading it.",
    }
    from npgemma.arguments import Parser

    name = "cli.py" if command == "generate" else f"cli.py {command}"
    parser = Parser(prog=name, description=about[command], allow_abbrev=False)
    parser.set_defaults(command=command)
    parser.add_argument(
        "--checkpoint", "--model_path", metavar="DIR", help="folder in the hub's layout (default: the embedded one)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object for each picture, instead of text")
    if command == "inspect":
        return parser
    add_model_options(parser)
    add_generation_options(parser, max_tokens=100 if command == "generate" else 8)
    if command == "generate":
        parser.add_argument("--annotate", metavar="FILE", help="picture to write, with the boxes of a 'detect' answer")
    if command == "trace":
        parser.add_argument("--out", metavar="FILE", required=True, help="safetensors file to write")
        parser.add_argument(
            "--only", metavar="PATTERN", default="*", help="keep names that match, such as '*/block.3/*'"
        )
    return parser


def add_model_options(parser):
    """Add what says which model runs on what."""
    parser.add_argument("--backend", choices=("numpy", "torch"), default="numpy")
    parser.add_argument(
        "--image", "--image_file_path", nargs="+", metavar="FILE", help="pictures (default: the example)"
    )
    parser.add_argument("--prompt", default="caption en", metavar="TEXT", help="default: %(default)s")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64", "bfloat16"),
        default="float32",
        help="of weights and arithmetic; NumPy keeps bfloat16 weights and calculates in float32 (default: %(default)s)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the torch backend")
    # The small ports' switch: they take a GPU unless told not to, we only when told to.
    parser.add_argument(
        "--only_cpu", nargs="?", const=True, default=False, type=truth, dest="only_cpu", help=argparse.SUPPRESS
    )


def add_generation_options(parser, max_tokens):
    """Add what says how tokens are chosen."""
    parser.add_argument(
        "--max-tokens",
        "--max_tokens_to_generate",
        type=int,
        default=max_tokens,
        metavar="N",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--do-sample", "--do_sample", nargs="?", const=True, default=False, type=truth, metavar="BOOL",
        help="draw tokens by probability instead of taking the most probable",
    )  # fmt: skip
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="default: %(default)s")
    parser.add_argument(
        "--top-p", "--top_p", type=float, default=1.0, metavar="P", help="keep the fewest tokens that reach P"
    )
    parser.add_argument("--top-k", "--top_k", type=int, metavar="K", help="keep the K most probable tokens")
    parser.add_argument("--seed", type=int, metavar="S", help="of the drawing; the same seed gives the same answer")


def truth(word):
    """Read a truth value as the small ports' launch scripts write it."""
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[word.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"should be True or False, found '{word}'") from None


def _one_line(message):
    return " ".join(str(message).split())


if __name__ == "__main__":
    sys.exit(main())
