"""Many images and prompts on a command line: which are meant, that one bad file stops nothing, and what is written."""

import json
import os
import shutil
import sys
import weakref

import pytest
from PIL import Image
from test_command import assert_refused
from test_mistake import run  # noqa: F401 a fixture
from test_progress import on_a_terminal

import npgemma
from npgemma.command import inputs, main, prepare
from npgemma.files.images import FORMATS
from npgemma.files.writing import replacing


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Work in a folder with images, and with what is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("deep", "empty"):
        os.mkdir(name)
    for i, name in enumerate(["b.png", "a.JPG", "deep/c.png", "deep/.d.png", "[x].png", "@x.png", "-"]):
        Image.new("RGB", (20 + i, 20), (30 * i, 90, 200 - 30 * i)).save(name, "PNG")
    (tmp_path / "cut.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    (tmp_path / "list.txt").write_text("b.png\r\n\n  \ndeep/c.png\n-\n")
    (tmp_path / "notes.txt").write_text("\n")
    (tmp_path / "zero.txt").write_text("a\0.png\n")
    os.mkfifo("pipe.png")
    os.symlink(".", "deep/loop")


def piped(monkeypatch, content, end=True):
    """Put a pipe in place of stdin."""
    reader, writer = os.pipe()
    os.write(writer, content)
    if end:
        os.close(writer)
    monkeypatch.setattr(sys, "stdin", os.fdopen(reader))


def answers(outcome, status=0):
    assert outcome[0] == status, outcome[2]
    return [json.loads(line) for line in outcome[1].splitlines()]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("b.png a.JPG b.png", "b.png a.JPG b.png"),
        (". deep", "./@x.png ./[x].png ./a.JPG ./b.png ./cut.png ./pipe.png deep/c.png"),
        ("[@-c]*.png", "@x.png [x].png b.png cut.png"),
        ("**/[a-c].*", "a.JPG b.png deep/c.png"),
        ("deep/** deep/.*", "deep/c.png deep/.d.png"),
        ("[x].png @x.png - ?", "[x].png @x.png - ./-"),
        ("@list.txt", "b.png deep/c.png ./-"),
        ("none.png http://a.b/c?d=[e]", "none.png http://a.b/c?d=[e]"),
    ],
)
def test_words_name_images(words, found):
    assert inputs.image_paths(words.split()) == found.split()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--image empty", "'empty' names no image"),
        ("--image *.gif", "'*.gif' names no image"),
        ("--image **x/*.png", "'**x/*.png' cannot be read"),
        ("--image @none.txt", "no file 'none.txt'"),
        ("--image @notes.txt", "'@notes.txt' names no image"),
        ("--image @zero.txt", "it has zero bytes"),
        ("--image @pipe.png", "'pipe.png' is a pipe or a device"),
        ("--image b.png b.png --annotate out.png", "one answer about one image, found 2: use --out-dir DIR"),
        ("--annotate", "--annotate needs a name behind it, or --out-dir DIR"),
        ("--annotate x.png --out-dir out", "leave out 'x.png' behind --annotate"),
        ("--out-dir out", "add --annotate or"),
        ("--annotate --out-dir notes.txt", "cannot write to the folder 'notes.txt'"),
        (f"--annotate {5000 * 'x'}.png", "File name too long"),
        ("--annotate pipe.png", "it is a pipe or a device"),
        ("parity --image b.png a.JPG", "takes one image, found 2"),
        ("explain --out x --image deep .", "takes one image, found 7"),
        ("--prompt - --image -", "either the image or the prompt"),
        ("--image -", "at most 10 bytes, found more"),
        ("--prompt -", "at most 10 bytes, found more"),
    ],
)
def test_what_cannot_be_is_refused(run, monkeypatch, line, says):  # noqa: F811
    piped(monkeypatch, b"x" * 20, end=False)
    monkeypatch.setattr(inputs, "MOST", {"image": 10, "prompt": 10})
    outcome = run(*line.split(" "))
    assert_refused(outcome, says)
    assert len(outcome[2]) < 1000


def test_an_image_in_a_folder_is_found_by_every_ending_of_its_format():
    known = {ending for ending, name in Image.registered_extensions().items() if name in {*FORMATS, "MPO"}}
    assert known <= {*inputs.IMAGE_ENDINGS}


def test_a_note_begins_a_line(run, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    out = run("--image", "b.png", "--annotate", "x.png", "--max-new-tokens", 1)[1]
    assert out.splitlines()[1].startswith("note: the answer names no box")


@pytest.mark.parametrize("kind", ["--image", "--prompt"])
@pytest.mark.parametrize(
    ("content", "end", "says"), [(b"", True, "found 0 bytes"), (b"x", False, "not ended after 0.1 seconds")]
)
def test_a_pipe_with_nothing_or_without_an_end_is_refused(run, monkeypatch, kind, content, end, says):  # noqa: F811
    monkeypatch.setattr(inputs, "SECONDS", 0.1)
    piped(monkeypatch, content, end)
    assert_refused(run(kind, "-"), says)
    monkeypatch.setattr(sys, "stdin", None)
    assert_refused(run(kind, "-"), "nothing is piped to stdin")


def test_an_image_and_a_prompt_may_be_piped_in(run, tmp_path, monkeypatch):  # noqa: F811
    piped(monkeypatch, (tmp_path / "b.png").read_bytes())
    found = answers(run("--image", "-", "b.png", "-", "--json", "--save-image-as-seen", "--out-dir", "out"))
    assert [each["image"] for each in found] == ["-", "b.png", "-"]
    assert found[0]["text"] == found[1]["text"] == found[2]["text"]
    assert sorted(os.listdir("out")) == ["b-seen.png", "stdin-seen-2.png", "stdin-seen.png"]
    for command in ([], ["trace", "--list"]):
        piped(monkeypatch, b"ocr\n")
        assert run(*command, "--image", "b.png", "--prompt", "-", "--max-new-tokens", 1)[0] == 0


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("drawn", [[], ["--do-sample", "--temperature", 3, "--seed", 4]])
def test_a_bad_file_stops_no_other_and_batches_change_nothing(run, backend, drawn):  # noqa: F811
    names, settings = ["b.png", "cut.png", "b.png", "empty", "b.png"], ("--max-new-tokens", 6, "--backend", backend)
    alone = [
        answers(run("--image", "b.png", "--json", *settings, *drawn, *(["--seed", 4 + place] if drawn else [])))[0]
        for place in (0, 2, 4)
    ]
    texts = "".join(f"b.png: {each['text']}\n" for each in alone)
    for size in ([], *(["--batch-size", size] for size in (1, 2, 3, 5))):
        outcome = run("--image", *names, "--json", *settings, *drawn, *size)
        found = answers(outcome, 2)
        assert [answer["image"] for answer in found] == names
        assert [each["token_ids"] for each in found[::2]] == [each["token_ids"] for each in alone]
        assert all(set(each) == {"image", "prompt", "error"} and each["image"] in each["error"] for each in found[1::2])
        assert outcome[2] == "".join(f"error: {each['error']}\n" for each in found[1::2])
        assert run("--image", *names, *settings, *drawn, *size) == (2, texts, outcome[2])
    assert len({each["text"] for each in alone}) == (3 if drawn else 1)


@pytest.mark.parametrize("size", [1, 2])
def test_images_are_read_when_their_turn_comes(run, monkeypatch, size):  # noqa: F811
    held, most, read = set(), [], prepare.load_image

    def load_image(*arguments):
        loaded, number = read(*arguments), len(most)
        held.add(number)
        most.append(len(held))
        weakref.finalize(loaded, held.discard, number)
        return loaded

    monkeypatch.setattr(prepare, "load_image", load_image)
    assert run("--image", *["b.png"] * 9, "--batch-size", size, "--max-new-tokens", 1)[0] == 0
    assert (len(most), max(most)) == (9, 2 * size)


@pytest.mark.parametrize(("size", "encoded"), [([], [1, 1]), (["--batch-size", 3], [3, 1])])
def test_every_prompt_is_asked_of_every_image(run, monkeypatch, size, encoded):  # noqa: F811
    batches, encode = [], npgemma.Model._encode
    prompts, images = ["ocr", "caption\nen"], ["b.png", "a.JPG"]
    asked = ("--image", *images, *(word for prompt in prompts for word in ("--prompt", prompt)), *size)
    with monkeypatch.context() as patch:
        patch.setattr(npgemma.Model, "_encode", lambda *given: batches.append(len(given[1])) or encode(*given))
        found = answers(run(*asked, "--json"))
    assert batches == encoded
    assert [(each["image"], each["prompt"]) for each in found] == [(a, b) for a in images for b in prompts]
    for each in found:
        alone = answers(run("--image", each["image"], "--prompt", each["prompt"], "--json"))
        assert alone[0]["token_ids"] == each["token_ids"]
    labels = ["b.png: ocr: ", "b.png: caption\\u000aen: ", "a.JPG: ocr: ", "a.JPG: caption\\u000aen: "]
    assert run(*asked)[1] == "".join(f"{label}{each['text']}\n" for label, each in zip(labels, found))


def test_files_about_several_images(run, tmp_path):  # noqa: F811
    for path in ("x/cat.png", "x/cat-annotated.png", "y/cat.png"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy(npgemma.example_image(), path)
    Image.open("x/cat.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("x/cat.png")
    before, prompt = (tmp_path / "x/cat-annotated.png").read_bytes(), ("--prompt", "segment red circle")
    every = ("--annotate", "--mask-dir", "--show-attention", "--save-image-as-seen", "--batch-size", 3)
    found = answers(run("--image", "x", "y", "cut.png", "--json", *prompt, *every, "--out-dir", "x"), 2)
    names = [
        ["cat-annotated-seen", "cat-annotated-annotated", "cat-annotated-1-red-circle", "cat-annotated-attention"],
        ["cat-seen", "cat-annotated-2", "cat-1-red-circle", "cat-attention"],
        ["cat-seen-2", "cat-annotated-3", "cat-1-red-circle-2", "cat-attention-2"],
    ]
    assert [each["files"] for each in found[:3]] == [[f"x/{name}.png" for name in each] for each in names]
    assert len(os.listdir("x")) == 2 + 12
    assert (tmp_path / "x/cat-annotated.png").read_bytes() == before
    assert run("--image", "y", *prompt, "--show-attention", "alone.png")[0] == 0
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "x/cat-attention-2.png").read_bytes()
    # Of several prompts, and a note that says of which answer it is.
    two = ("--prompt", "detect red circle", "--prompt", "ocr")
    _, _, err = run("--image", "y", *two, "--annotate", "--out-dir", "new/deep")
    assert os.listdir("new/deep") == ["cat-prompt1-annotated.png"]
    assert err.startswith("note: ocr: the answer names no box")


def test_how_many_are_done_is_shown_between_answers(monkeypatch, capsys):
    terminal = on_a_terminal(monkeypatch)
    assert main(["--image", "b.png", "a.JPG", "deep/c.png", "--max-new-tokens", "2", "--json"]) == 0
    lines = [line for line in terminal.getvalue().split("\r\033[K") if " of 3" in line]
    assert list(dict.fromkeys(line[:6] for line in lines)) == ["0 of 3", "1 of 3", "2 of 3"]
    assert any(line.endswith(" s left") for line in lines)
    assert any(" s left: encoding the image: " in line for line in lines)
    assert sum("reading the prompt" in line for line in lines) == 3 * npgemma.load().config.text.layers
    assert terminal.getvalue().endswith("\r\033[K")
    assert "\033" not in capsys.readouterr().out


def test_a_file_is_replaced_whole_with_its_permissions(tmp_path):
    path = tmp_path / (251 * "x" + ".txt")
    path.touch(0o640)
    with replacing(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b""
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("after", 0o640)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("name", ["", ".", "pipe.png", "b.png/x", "none/x", 300 * "x", "a\0b", "/dev/full", "loop"])
def test_what_cannot_be_written_is_one_sentence_with_its_own_name(name):
    os.symlink("loop", "loop")
    with pytest.raises(npgemma.InputError, match=r"^cannot write '") as refused, replacing(name):
        pass
    assert ".part" not in str(refused.value)
