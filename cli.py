"""The command line: ``python cli.py --help``. It prints; its arguments are declared in ``npgemma/arguments.py``."""

import json
import os
import sys

COMMANDS = ("trace", "parity", "inspect", "bench")
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
        from npgemma.command.arguments import parser_of

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

    action = {"generate": generate, "trace": trace, "parity": parity, "inspect": inspect, "bench": bench}[command]
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
        print(
            "error: not enough memory for this model here; --dtype bfloat16 needs half, int8 a quarter", file=sys.stderr
        )
    return BAD_INPUT


def generate(options):
    """Print the answer for every picture."""
    from npgemma.command.annotate import check_mask_folder, check_picture_name
    from npgemma.command.progress import Progress

    progress = Progress()
    if options.annotate is not None:
        check_picture_name(options.annotate)
    if options.mask_dir is not None:
        check_mask_folder(options.mask_dir, options.image or [])
    model, pictures = prepare(options, progress, most=1 if options.annotate else None)
    model.params = progress.watch(model.params)
    for path, pixels in pictures:
        label = f"{path}: " if len(pictures) > 1 and not options.json else ""
        writer = Writer(label, progress, quiet=options.json)
        try:
            model.generate(pixels, watch=writer.watch, **settings(options))
            writer.finish()
            write_drawn(options, path, writer.generation.text, model.folder)
        finally:
            progress.clear()
            # Also after an interrupt: what there is of the answer is printed.
            if options.json and writer.generation:
                print(json.dumps(as_json(path, options.prompt, writer.generation, model.folder)), flush=True)
            elif writer.generation:
                print(flush=True)
    note_ignored_settings(options)
    return 0


def trace(options):
    """Write every named array of an answer to a file."""
    from conversion.safetensors_file import Spool
    from npgemma import record
    from npgemma.command.progress import Progress

    spool, progress = Spool(options.out), Progress()
    model, pictures = prepare(options, progress, most=1)
    [(path, pixels)] = pictures
    with record(options.only, spool.add):
        answer = model.generate(pixels, **settings(options))
    if not spool.entries:
        raise_input_error(f"no array matches --only '{options.only}': names look like step.0/logit_BV")
    about = {"image": path, "prompt": options.prompt, "backend": options.backend, "dtype": options.dtype}
    spool.close({**about, "token_ids": json.dumps(answer.token_ids)})
    print(f"{len(spool.entries)} arrays of '{answer.text}' written to {options.out}", file=sys.stderr)
    if options.json:
        about = as_json(path, options.prompt, answer, model.folder)
        print(json.dumps(about | {"out": options.out, "arrays": len(spool.entries)}))
    return 0


def parity(options):
    """Run both backends on one input and print how far they are apart."""
    import npgemma
    from npgemma.command.progress import Progress
    from npgemma.command.tables import parity_table
    from npgemma.tools.compare import BOUNDS, DEVICE_FACTOR, Comparison

    torch_ref = import_twin()
    progress = Progress()
    options.backend = "numpy"
    # Both backends must draw alike.
    options.seed = 0 if options.seed is None else options.seed
    model, pictures = prepare(options, progress, most=1)
    if options.dtype == "int8":
        # What it costs: compared with the twin on the weights that were rounded.
        twin = torch_ref.load(model.folder, "float32", options.device)
    else:
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
    from npgemma.command.tables import inspect_table

    report = describe(str(embedded_checkpoint()) if options.checkpoint is None else options.checkpoint)
    print(json.dumps(report) if options.json else inspect_table(report), flush=True)
    return 0


def bench(options):
    """Print how fast a model runs, beside how fast it could."""
    from npgemma.command.progress import Progress
    from npgemma.command.tables import bench_table
    from npgemma.tools.bench import measure

    progress = Progress()
    check_backend(options)
    if options.size and options.checkpoint:
        raise_input_error("pass either --size or --checkpoint")
    model = stand_in(options) if options.size else load_model(options, progress)
    report = measure(model, options.batches, options.tokens, progress=lambda what: progress.note(f"measuring {what}"))
    progress.clear()
    about = {"checkpoint": options.size or str(model.folder), "backend": options.backend, "device": options.device}
    about["static"] = options.static
    print(json.dumps(about | report) if options.json else bench_table(about | report), flush=True)
    return 0


def stand_in(options):
    """Return a model of a published size whose weights mean nothing."""
    import conversion
    import npgemma
    from npgemma.config import PUBLISHED

    config = PUBLISHED[options.size]
    params = conversion.stand_in_params(config, options.dtype)
    if options.backend == "numpy":
        return npgemma.Model(params, config, options.size, options.dtype)
    twin = import_twin()
    params = twin.to_torch(params, options.dtype, options.device)
    return twin.Model(params, config, options.size, options.dtype, device=options.device, static=options.static)


def prepare(options, progress, most=None):
    """Read the pictures, then load the model: what is quickly found wrong is told before the long work.

    Returns
    -------
    (Model, list of (path, pixels_BYXC))
    """
    import npgemma
    from conversion.folder import open_folder
    from npgemma.image import load_pixels
    from npgemma.model import check_settings

    if options.only_cpu:
        options.device = "cpu"
    check_backend(options)
    check_settings(options.max_new_tokens, options.temperature, options.top_p, options.top_k, options.seed)
    folder = str(npgemma.embedded_checkpoint()) if options.checkpoint is None else options.checkpoint
    paths = options.image or [str(npgemma.example_picture())]
    if most and len(paths) > most:
        raise_input_error(f"this command takes one picture, found {len(paths)}")
    config, _ = open_folder(folder)
    size = config.vision.image_size
    pictures = [(path, load_pixels(path, size)) for path in paths]
    return load_model(options, progress), pictures


def check_backend(options):
    """Refuse what the chosen backend cannot do here."""
    if options.backend == "torch" or options.command == "parity":
        import_twin().check_device(options.device)
    elif options.device != "cpu":
        raise_input_error("NumPy runs on the CPU: use --backend torch with --device cuda")
    if options.backend != "torch" and getattr(options, "static", False):
        raise_input_error("--static is a way of the torch backend: use --backend torch")
    if options.backend == "torch" and options.dtype == "int8":
        raise_input_error("int8 weights are the NumPy backend's: use --backend numpy, or --dtype bfloat16")


def load_model(options, progress):
    """Load the checkpoint for the chosen backend."""
    import npgemma

    def report(done, total):
        progress.report("loading the weights", done, total)

    if options.backend == "torch":
        model = import_twin().load(
            options.checkpoint, options.dtype, options.device, report, getattr(options, "static", False)
        )
    else:
        model = npgemma.load(options.checkpoint, options.dtype, report)
    progress.clear()
    return model


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
    names = ("prompt", "max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "seed")
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


def as_json(path, prompt, generation, folder):
    """Return the object that ``--json`` prints."""
    from npgemma import answer

    return {
        "image": path,
        "prompt": prompt,
        "text": generation.text,
        "token_ids": generation.token_ids,
        "objects": [answer.as_json(thing) for thing in answer.read_answer(path, generation.text, folder)[1]],
        "timings": generation.timings,
    }


def write_drawn(options, path, text, folder):
    """Write what was asked for of an answer's boxes and masks; say so if there is nothing to write."""
    from npgemma.answer import read_answer
    from npgemma.command.annotate import annotate, save_picture, write_masks

    if not (options.annotate or options.mask_dir):
        return
    picture, objects = read_answer(path, text, folder)
    if options.annotate and objects:
        save_picture(annotate(picture, objects), options.annotate)
    elif options.annotate:
        print("note: the answer names no box, so no picture was written: ask 'detect ...'", file=sys.stderr)
    if options.mask_dir and not write_masks(options.mask_dir, path, objects):
        reason = f"the checkpoint has no {codebook_file()}" if "<seg" in text else "ask 'segment ...'"
        print(f"note: the answer has no mask that can be read: {reason}", file=sys.stderr)


def codebook_file():
    """Return the name of the file that masks are read with."""
    from conversion.codebook import FILE

    return FILE


def _one_line(message):
    return " ".join(str(message).split())


if __name__ == "__main__":
    sys.exit(main())
