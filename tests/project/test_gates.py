"""Every file from outside is read inside one gate, and whatever is printed goes through another."""

import ast
import os

import pytest
from support import ROOT

from npgemma.command import guarded
from npgemma.errors import InputError
from npgemma.files.foreign import MOST, shown
from npgemma.files.reading import parse_json, reading

FUNCTIONS = {
    "open", "Image.open", "np.load", "np.memmap", "np.fromfile", "json.load", "json.loads", "tomllib.load",
    "tomllib.loads", "safe_open", "safetensors.safe_open", "zipfile.ZipFile", "sentencepiece.SentencePieceProcessor",
    "ImageFont.truetype",
}  # fmt: skip
METHODS = (".read_text", ".read_bytes")
# Files whose readers read nothing from outside, or write.
OURS = {
    "npgemma/files/reading.py": "the gate itself",
    "npgemma/files/writing.py": "writes",
    "npgemma/command/__init__.py": "opens the null device",
    "npgemma/command/fonts.py": "keeps a font that was opened, which open_font does inside of the gate",
    "npgemma/benchmarks/machine.py": "asks the system",
    "npgemma/benchmarks/runs.py": "brings a file that is read next into the system's cache",
    "npgemma/command/parity.py": "what it has written itself",
    "npgemma/porting/parity/document.py": "hashes files that a model was loaded from",
    "npgemma/explain/bundle.py": "the page's own files",
    "npgemma/explain/sources.py": "the project's own source",
    "npgemma/probe/rewriting.py": "the project's own source",
    "conversion/__main__.py": "the project's own source",
    "conversion/big_vision.py": "maps members inside of its caller's gate, and writes",
    "conversion/memory.py": "asks the system",
    "conversion/vocabulary.py": "what it has trained itself",
    "conversion/hugging_face.py": "what vocabulary.py has written",
}
MODULES = [path for name in ("npgemma", "conversion", "torch_ref") for path in sorted((ROOT / name).rglob("*.py"))]


def readers(tree, inside=False):
    """Yield the name and line of every call that reads a file, and whether a ``with reading(...)`` is around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FUNCTIONS or name.endswith(METHODS):
                yield name, node.lineno, inside
        gate = isinstance(node, ast.With) and any("reading(" in ast.unparse(item) for item in node.items)
        yield from readers(node, inside or gate)


def test_every_reader_goes_through_the_gate():
    outside, found = [], 0
    for path in MODULES:
        name = path.relative_to(ROOT).as_posix()
        for call, line, inside in readers(ast.parse(path.read_text())):
            found += inside
            if not inside and name not in OURS:
                outside.append(f"{name}:{line} {call}")
    assert found > 8
    assert not outside


@pytest.mark.parametrize("problem", [KeyError("a"), RecursionError(), MemoryError(), UnicodeError(), OSError(5, "x")])
def test_whatever_a_parser_raises_is_one_sentence(tmp_path, problem):
    path = tmp_path / "file"
    path.write_text("x")
    with (
        pytest.raises(InputError, match=r"/file' is not a thing \(.+\): fetch"),
        reading(path, "a thing", "fetch it"),
    ):
        raise problem


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nothing", "pointer", "\0"])
def test_only_files_are_opened(tmp_path, kind):
    path = {"device": "/dev/zero", "folder": tmp_path, "\0": "a\0b"}.get(kind, tmp_path / kind)
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    refusal = pytest.raises(InputError, match=r"pipe or a device|is a folder|there is no file|only a pointer")
    with refusal, reading(path, "a thing", "fetch it"):
        raise AssertionError("opened")


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1e999}', '{"a": [1]}', '{"a": true}', "[]", "1", '{"b": 1}'])
def test_json_has_its_declared_shape(text):
    with pytest.raises(InputError, match=r"the file(: a)? should be (a finite number|an object), found "):
        parse_json(text, {"a": float}, "the file")


@pytest.mark.parametrize("text", ["[" * 10**5, "1" * 5000, "{", "\ud800"])
def test_what_is_no_json(text):
    with pytest.raises(InputError, match="the file is not valid JSON"):
        parse_json(text, object, "the file")


HOSTILE = "a\x1b[31m\u202eb\x9bc\u2028d\x7f\ud800\u200b"
VISIBLE = r"a\u001b[31m\u202eb\u009bc\u2028d\u007f\ud800\u200b"


def test_what_is_printed_sends_no_control_characters(capsys):
    def run():
        print(HOSTILE)
        raise InputError(f"'{HOSTILE}\n' is wrong")

    assert guarded(run) == 2
    assert capsys.readouterr() == (f"{VISIBLE}\n", rf"error: '{VISIBLE}\u000a' is wrong" + "\n")


def test_messages_have_an_end():
    for value in (list(range(300_000)), "x" * 10**6, "x y" * 10**6, "\x1b" * 10**6):
        message = str(InputError(f"a size should be a number, found '{value}': download it again"))
        assert len(message) < 7 * MOST
        assert message.startswith("a size should be")
        assert message.endswith("': download it again")
    assert shown("joined\u200dletters") == "joined\u200dletters"
