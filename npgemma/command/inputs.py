"""What a command line asks about: images by name, folder, pattern, list or pipe, and prompts that are piped in."""

import contextlib
import functools
import glob
import itertools
import os
import pathlib
import re
import sys
import threading
from typing import Any, NamedTuple

from npgemma.errors import InputError
from npgemma.files.foreign import shown
from npgemma.files.reading import reading, reason

IMAGE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".ppm",
    ".apng", ".jfif", ".jpe", ".mpo", ".avifs", ".heif", ".pbm", ".pgm", ".pnm", ".pfm",
)  # fmt: skip
# What stands for stdin; the seconds that a pipe or a pattern may take; the bytes of what is piped in, and of a list.
PIPED, SECONDS, MOST, MOST_LIST = "-", 8, {"image": 100_000_000, "prompt": 100_000}, 10_000_000


class Question(NamedTuple):
    """A prompt about the image, or list of images, behind a path or paths; or about the error that there is none.

    Its number counts from 0; its label tells its answer from others, and files about it are named after ``file``.
    """

    number: int
    path: Any
    image: Any
    prompt: str
    label: str
    file: str


def batches(paths, prompts, read, size):
    """Yield each prompt about each image, so many at a time; those whose image is an error by themselves.

    ``read`` is called with a path when the first question about it comes.
    """
    questions = _questions(paths, prompts, read)
    while batch := list(itertools.islice(questions, size)):
        for _, alike in itertools.groupby(batch, lambda question: isinstance(question.image, InputError)):
            yield list(alike)


def _questions(paths, prompts, read):
    numbers = itertools.count()
    for path in paths:
        image = read(path)
        # Not the content of a data: address.
        each = [re.sub("(?is)^data:.*", "data", one) for one in flat([path])]
        root, ending = os.path.splitext("stdin" if each[0] == PIPED else each[0])
        for place, prompt in enumerate(prompts, 1):
            words = [shown(", ".join(each), 300)] * (len(paths) > 1) + [shown(prompt, 80)] * (len(prompts) > 1)
            file = root + f"-prompt{place}" * (len(prompts) > 1) + ending
            yield Question(next(numbers), path, image, prompt, "".join(f"{word}: " for word in words), file)


def flat(paths):
    """Return the paths of all images, where some questions may be about several."""
    return [path for one in paths for path in ([one] if isinstance(one, str) else one)]


def image_paths(words):
    """Return the images that words name, in their order; InputError if the only word is one that names none.

    A word is a file; a folder, for the images in it by name, not in folders in it; a pattern such as ``pics/**/*.jpg``;
    ``@list.txt``, a file with a path on each line, seen from the current folder; or ``-``. What exists comes first.
    """
    found = []
    for word in words:
        try:
            found += _paths(word)
        except InputError:
            if len(words) == 1:
                raise
            found.append(word)  # its turn comes, and it is said to be no image
    return found


def _paths(word):
    if os.path.isdir(word):
        found = _soon(lambda: _inside(word), f"'{word}'", "name another folder")
    elif word == PIPED or os.path.lexists(word) or re.match("[a-z]+://|data:", word, re.IGNORECASE):
        return [word]
    elif word.startswith("@"):
        found = _listed(word[1:])
    elif glob.has_magic(word):
        found = _soon(lambda: _matching(word), f"'{word}'", "begin it with the name of a smaller folder")
    else:
        return [word]
    if not found:
        raise InputError(f"'{word}' names no image: expected names like a.png or a.jpg in a folder, or paths in a list")
    # A file of this name is not stdin.
    return [os.path.join(".", path) if path == PIPED else path for path in found]


def _inside(folder):
    names = (name for name in os.listdir(folder) if name.lower().endswith(IMAGE_ENDINGS) and name[0] != ".")
    return [os.path.join(folder, name) for name in sorted(names)]


def _listed(path):
    with reading(path, "a list of paths, one on each line, in UTF-8", "write one"):
        if os.path.getsize(path) > MOST_LIST:
            raise InputError(f"the list '{path}' has more than {MOST_LIST:,} bytes: split it")
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("it has zero bytes")
        return [line for line in text.splitlines() if line.strip()]


def _matching(pattern):
    """Return the files that match; links to folders are not followed, and hidden files left out."""
    path = pathlib.Path(pattern)
    path = path / "*" if path.name == "**" else path
    found = pathlib.Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    hidden = path.name.startswith(".")
    return sorted(str(each) for each in found if not each.is_dir() and each.name.startswith(".") == hidden)


def with_piped_prompt(options):
    """Return the options of a command with the prompt from stdin in place of ``-``."""
    prompts = getattr(options, "prompts", [])
    if PIPED in prompts and PIPED in (options.image or []):
        raise InputError("stdin is either the image or the prompt: name a file, or write the prompt after --prompt")
    if PIPED in prompts:
        try:
            text = _all_of(sys.stdin, "prompt").decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise InputError("the prompt on stdin is not text in UTF-8: convert it first") from None
        options.prompts = [text if prompt == PIPED else prompt for prompt in prompts]
        options.prompt = options.prompts[-1]
    return options


def contents(path):
    """Return what an image is read from: a path, or what is piped in."""
    return _all_of(sys.stdin, "image") if path == PIPED else path


@functools.cache
def _all_of(stream, kind):
    """Return all of a stream, which should hold an image or a prompt and is read once."""
    descriptor = None
    with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or no file
        descriptor = None if stream.isatty() else stream.fileno()
    if descriptor is None:
        raise InputError(f"nothing is piped to stdin: end the line with '< FILE', of the {kind}")
    found = _soon(lambda: _at_most(descriptor, MOST[kind]), "stdin", f"write the {kind} to a file, and use '< FILE'")
    if not 0 < len(found) <= MOST[kind]:
        size = "more" if found else "0 bytes"
        raise InputError(f"expected the {kind} on stdin, of at most {MOST[kind]:,} bytes, found {size}")
    return found


def _at_most(descriptor, most):
    """Read a file to its end or just past so many bytes, without Python's buffer, whose lock would outlive a wait."""
    found = bytearray()
    while len(found) <= most and (more := os.read(descriptor, 2**20)):
        found += more
    return bytes(found)


def _soon(work, what, advice):
    """Return what ``work()`` returns; InputError if it fails, or takes more than `SECONDS`."""
    results = []

    def run():
        try:
            results.append(work())
        except Exception as problem:  # whatever it is, it is told
            results.append(InputError(f"{what} cannot be read ({reason(problem)}): {advice}"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    [result] = results or [InputError(f"{what} has not ended after {SECONDS} seconds: {advice}")]
    if isinstance(result, InputError):
        raise result
    return result
