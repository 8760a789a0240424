"""From options to a loaded model and its inputs; errors that are found quickly are reported before long work."""

import contextlib
import os
import sys
from dataclasses import fields

import npgemma
from npgemma.command.progress import Progress
from npgemma.config import Gemma2Config
from npgemma.errors import InputError
from npgemma.image import load_image
from npgemma.machinery.sampling import Sampling


def sampling(options, **fixed):
    """Return the settings of an answer.

    Parameters
    ----------
    options : argparse.Namespace
    **fixed
        Fields that the command sets itself.

    Returns
    -------
    dict
        The keywords of `npgemma.Model.generate`, validated.
    """
    settings = {field.name: getattr(options, field.name) for field in fields(Sampling)} | fixed
    Sampling(**settings)
    return settings


def checkpoint(options):
    """Return where the checkpoint's parts lie: those of the options, or the embedded checkpoint."""
    from conversion.source import Source

    path = npgemma.embedded_checkpoint() if options.checkpoint is None else options.checkpoint
    return Source.of(path, options.base, options.config, options.tokenizer)


def device(options):
    """Return the device of the options, ``cpu`` under --only_cpu."""
    return "cpu" if options.only_cpu else options.device


def images(options, most=None):
    """Read the images at the size of the checkpoint's model.

    Parameters
    ----------
    options : argparse.Namespace
    most : int, optional
        The command answers no more prompts.

    Returns
    -------
    list of (path, LoadedImage)
        With several images per prompt, of (list of paths, list of LoadedImage).
    """
    from conversion.folder import open_folder, tokenizer_of
    from conversion.preprocessing import read_preprocessing

    paths = options.image or [str(npgemma.example_image())]
    each = options.images_per_prompt
    if most and len(paths) > most * each:
        raise InputError(f"this command takes {'one image' if each == 1 else f'{each} images'}, found {len(paths)}")
    if len(paths) % each:
        raise InputError(f"--images-per-prompt {each} should divide the number of images, found {len(paths)}")
    source = checkpoint(options)
    config, _ = open_folder(source)
    preprocessing = read_preprocessing(source, config, options.resize)
    if tokenizer_of(source) is None:
        raise InputError(
            f"no tokenizer in '{source.path}': a prompt needs the checkpoint's tokenizer.model or tokenizer.json, or "
            "--tokenizer FILE"
        )
    with _quiet_libraries():
        loaded = [(path, load_image(path, config.vision.image_size, preprocessing)) for path in paths]
    if each == 1:
        return loaded
    return [tuple(map(list, zip(*loaded[first : first + each]))) for first in range(0, len(loaded), each)]


@contextlib.contextmanager
def _quiet_libraries():
    """Keep away what libtiff, which Pillow uses, writes to stderr by itself; what matters is raised as an error."""
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


def _config(options):
    """Return the sizes of the checkpoint's model."""
    from conversion.folder import open_folder

    config, _ = open_folder(checkpoint(options))
    return config


@contextlib.contextmanager
def mistake(options):
    """Make the mistake that the options ask for, if any, in everything that runs inside; say so on stderr."""
    from npgemma.porting.mistakes import MISTAKES, inject

    if options.mistake is None:
        yield
        return
    if getattr(options, "static", False):
        raise InputError("--static has a step of its own, without any mistake: leave it out")
    made_on = MISTAKES[options.mistake]
    if made_on.only_gemma2 and not isinstance(_config(options).text, Gemma2Config):
        raise InputError(f"{options.mistake} is about PaliGemma 2, and this checkpoint is a PaliGemma 1: name another")
    package = "npgemma" if options.backend == "numpy" else import_twin().__package__
    with inject(options.mistake, package):
        print(f"note: made on purpose: {made_on.says}", file=sys.stderr)
        yield


def load(options, progress):
    """Load the checkpoint for the backend that is asked for.

    Parameters
    ----------
    options : argparse.Namespace
    progress : npgemma.command.progress.Progress

    Returns
    -------
    npgemma.Model
    """
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
