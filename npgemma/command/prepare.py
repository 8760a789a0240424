"""From options to a loaded model and its inputs; errors that are found quickly are reported before long work."""

import contextlib
import os
import sys
from dataclasses import fields

from PIL import Image

import npgemma
from npgemma.command import inputs
from npgemma.command.progress import Progress
from npgemma.errors import InputError
from npgemma.files.images import open_image, upright_rgb
from npgemma.image import load_image
from npgemma.machinery.loading import check_neighbour
from npgemma.machinery.model import MARKS, without_marks
from npgemma.machinery.sampling import Sampling


def sampling(options, **fixed):
    """Return the keywords of `npgemma.Model.generate`, validated; ``fixed`` are those that the command sets itself."""
    settings = {field.name: getattr(options, field.name) for field in fields(Sampling)} | fixed
    Sampling(**settings)
    return settings


def checkpoint(options):
    """Return where the checkpoint's parts are: those of the options, or the embedded checkpoint."""
    from conversion.source import Source

    path = npgemma.embedded_checkpoint() if options.checkpoint is None else options.checkpoint
    return Source.of(path, options.base, options.config, options.tokenizer)


def device(options):
    """Return the device of the options, ``cpu`` under --only_cpu."""
    return "cpu" if options.only_cpu else options.device


def image_paths(options):
    """Return the path of every image that the options name; with several per prompt, the paths of each prompt."""
    paths, count = inputs.image_paths(options.image or [str(npgemma.example_image())]), options.images_per_prompt
    if len(paths) % count:
        raise InputError(f"--images-per-prompt {count} should divide the number of images, found {len(paths)}")
    return paths if count == 1 else [paths[first : first + count] for first in range(0, len(paths), count)]


def image_reader(options):
    """Return the function that reads the image of a path as `npgemma.image.LoadedImage`, at the size of the
    checkpoint's model, or a list of such images.
    """
    from conversion.folder import open_folder, tokenizer_of
    from conversion.preprocessing import read_preprocessing

    source = checkpoint(options)
    config, _ = open_folder(source)
    preprocessing = read_preprocessing(source, config, options.resize)
    if tokenizer_of(source) is None:
        raise InputError(
            f"no tokenizer in '{source.path}': a prompt needs the checkpoint's tokenizer.model or tokenizer.json, or "
            "--tokenizer FILE"
        )
    # Pillow has a limit of its own, for the whole process.
    Image.MAX_IMAGE_PIXELS = options.max_pixels

    def read(path):
        if isinstance(path, list):
            return [read(each) for each in path]
        with _quiet_libraries():
            return load_image(inputs.contents(path), config.vision.image_size, preprocessing, options.max_pixels)

    return read


def image(options):
    """Return the one image that a command takes, or the images of the one prompt, behind the path or paths."""
    paths, count = image_paths(options), options.images_per_prompt
    if len(options.prompts) > 1:
        raise InputError(f"this command takes one prompt, found {len(options.prompts)}")
    if len(paths) > 1:
        takes = "one image" if count == 1 else f"{count} images"
        raise InputError(f"this command takes {takes}, found {len(paths) * count}")
    return paths[0], image_reader(options)(paths[0])


def original(path, options):
    """Return the image of a path as it was before it was resized."""
    with _quiet_libraries():
        return upright_rgb(open_image(inputs.contents(path), options.max_pixels))


@contextlib.contextmanager
def _quiet_libraries():
    """Hide what libtiff, which Pillow uses, writes to stderr by itself; what matters is raised as an error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def backend_of(options):
    """Return the backend of the options; refuse early what that backend cannot do."""
    settings = options.dtype, device(options), getattr(options, "static", False)
    if options.backend == "numpy":
        return npgemma.machinery.backend.numpy_backend(*settings)
    return import_twin().torch_backend(*settings)


@contextlib.contextmanager
def mistake(options):
    """Inject the mistake that the options name, if any, into everything that runs inside; say so on stderr."""
    from conversion.folder import open_folder
    from npgemma.porting.mistakes import MISTAKES, inject

    if options.mistake is None:
        yield
        return
    if getattr(options, "static", False):
        raise InputError("--static has a step of its own, without any mistake: leave it out")
    config, _ = open_folder(checkpoint(options))
    if not MISTAKES[options.mistake].possible_in(config):
        raise InputError(f"{options.mistake} is about PaliGemma 2, and this checkpoint is a PaliGemma 1: name another")
    package = "npgemma" if options.backend == "numpy" else import_twin().__package__
    with inject(options.mistake, package):
        print(f"note: made on purpose: {MISTAKES[options.mistake].says}", file=sys.stderr)
        yield


def load(options, progress):
    """Load the checkpoint for the backend of the options."""
    package = npgemma
    if options.backend == "torch":
        import_twin()
        import torch_ref

        package = torch_ref
    static = getattr(options, "static", False)
    model = _load(package, options, progress, dtype=options.dtype, device=device(options), static=static)
    for prompt in getattr(options, "prompts", []) or [getattr(options, "prompt", None) or ""]:
        note_marks(prompt)
    return model


def note_marks(prompt):
    """Note what other programs read in a prompt: what stands in front of it is left out, elsewhere it stays."""
    rest = without_marks(prompt)
    for mark in MARKS:
        if mark in rest:
            print(f"note: {mark} within a prompt stays as it is; only in front of it is it left out", file=sys.stderr)
        # Where images stand, every program writes <image>; <bos> is what somebody was told to write.
        elif mark in prompt and mark != MARKS[0]:
            print(f"note: {mark} in front of a prompt is left out, since npgemma puts it there itself", file=sys.stderr)


def reference(options, dtype):
    """Load the checkpoint for the NumPy backend, whatever --backend says."""
    return _load(npgemma, options, Progress(), dtype=dtype)


def _load(package, options, progress, **settings):
    """Load the checkpoint that the options name, with all of its parts."""
    model = package.load(
        options.checkpoint,
        base=options.base,
        config=options.config,
        tokenizer=options.tokenizer,
        resize=getattr(options, "resize", None),
        progress=lambda done, total: progress.report("loading the weights", done, total),
        **settings,
    )
    progress.clear()
    print_notes(model.source)
    return model


def print_notes(source):
    """Say on stderr what a checkpoint holds or declares that is not followed."""
    from conversion.notes import notes_of

    for note in notes_of(source):
        print(f"note: {note}", file=sys.stderr)


def import_twin():
    """Import the torch backend, or say what is missing."""
    check_neighbour("torch_ref")
    try:
        import torch_ref.backend

        return torch_ref.backend
    except ModuleNotFoundError as problem:
        if problem.name != "torch":
            raise
    raise InputError("the torch backend needs PyTorch: pip install torch, or use --backend numpy")


def import_autograd():
    """Import what is `npgemma.backward.paligemma.loss_and_gradients` in the twin."""
    import_twin()
    import torch_ref.autograd

    return torch_ref.autograd.loss_and_gradients
