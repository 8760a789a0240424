"""From options to a loaded model and its inputs; errors that are found quickly are reported before long work."""

import contextlib
import os
import sys
from dataclasses import fields

from PIL import Image

import npgemma
from npgemma.command.progress import Progress
from npgemma.errors import InputError
from npgemma.image import load_image
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


def images(options, most=None):
    """Read the images at the size of the checkpoint's model, and return (path, `npgemma.image.LoadedImage`) of each;
    with several images per prompt, (paths, images) of each prompt. More than ``most`` prompts are an error.
    """
    from conversion.folder import open_folder, tokenizer_of
    from conversion.preprocessing import read_preprocessing

    paths = options.image or [str(npgemma.example_image())]
    count = options.images_per_prompt
    if most and len(paths) > most * count:
        raise InputError(f"this command takes {'one image' if count == 1 else f'{count} images'}, found {len(paths)}")
    if len(paths) % count:
        raise InputError(f"--images-per-prompt {count} should divide the number of images, found {len(paths)}")
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
    with _quiet_libraries():
        size = config.vision.image_size
        loaded = [(path, load_image(path, size, preprocessing, options.max_pixels)) for path in paths]
    if count == 1:
        return loaded
    return [tuple(map(list, zip(*loaded[first : first + count]))) for first in range(0, len(loaded), count)]


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
    return _load(package, options, progress, dtype=options.dtype, device=device(options), static=static)


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
    return model


def import_twin():
    """Import the torch backend, or say what is missing."""
    try:
        import torch_ref.backend

        return torch_ref.backend
    except ModuleNotFoundError as problem:
        if problem.name != "torch":
            raise
    raise InputError("the torch backend needs PyTorch: pip install torch, or use --backend numpy")
