"""What people bring from other programs: names of options and dtypes, image marks, batches."""

import json
import subprocess
import sys

import numpy as np
import pytest
from support import ROOT

import npgemma
from npgemma.command import main


@pytest.fixture
def run(capsys):
    """Run a command line; return its status, stdout and stderr."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["photo.jpg"], "did you mean --image photo.jpg?"),
        (["scan.TIFF", "--prompt", "ocr"], "did you mean --image scan.TIFF?"),
        (["inspekt"], "did you mean the command inspect?"),
        (["describe"], "did you mean --prompt 'describe'?"),
        (["--promt", "ocr"], "did you mean --prompt?"),
        (["--max_new_token=3"], "did you mean --max-new-tokens?"),
        (["--dtype", "float16"], "use bfloat16"),
        (["--dtype", "fp16"], "use bfloat16"),
        (["--dtype", "bf16"], "called bfloat16"),
        (["--dtype", "int4"], "float64, float32, bfloat16, int8"),
        (["--image", "https://example.org/cat.png"], "download the image first"),
        (["--image", "HTTP://example.org/cat.png"], "download the image first"),
        (["--batch-size", "0"], "above 0"),
        (["--max-pixels", "9"], "allow more with --max-pixels"),
    ],
)
def test_other_programs_words_are_told_in_ours(run, arguments, expected):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err


def test_a_file_and_a_folder_are_told_apart(run, tmp_path):
    file = tmp_path / "picture"
    file.write_bytes(b"")
    assert f"--image {file}?" in run(file)[2]
    assert f"--checkpoint {tmp_path}?" in run(tmp_path)[2]


def test_the_model_and_the_length_of_the_answer_have_both_names(run):
    folder = npgemma.embedded_checkpoint()
    answers = {
        run("--prompt", "caption en", length, 3, model, folder)[:2]
        for length in ("--max-new-tokens", "--max-tokens", "--max_tokens_to_generate")
        for model in ("--model", "--checkpoint", "--model_path")
    }
    assert len(answers) == 1


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_temperature_0_is_greedy(run, backend):
    settings = ["--prompt", "caption en", "--backend", backend]
    greedy = run(*settings)
    assert greedy[0] == 0
    assert run(*settings, "--temperature", 0) == greedy
    assert run(*settings, "--temperature", 0, "--do-sample") == greedy
    status, out, err = run(*settings, "--temperature", 0, "--do-sample", "--seed", 3)
    assert (status, out) == greedy[:2]
    assert err.startswith("note: --seed")


@pytest.mark.parametrize("mark", ["<image>", "<image> ", "<bos>", "<image><image><bos>", " <bos> \n<image>"])
def test_marks_in_front_are_left_out_and_said_to_be(run, mark):
    plain = run("--prompt", "answer en how many objects")
    assert plain[0] == 0
    status, out, err = run("--prompt", f"{mark}answer en how many objects")
    assert (status, out) == plain[:2]
    expected = ["note: <bos> in front of a prompt is left out"] * ("<bos>" in mark)
    assert [line.split(",")[0] for line in err.splitlines()] == expected
    assert npgemma.load().generate(npgemma.example_image(), f"{mark}answer en how many objects").text + "\n" == out


@pytest.mark.parametrize("mark", ["<image>", "<bos>"])
def test_a_mark_elsewhere_is_text_and_said_to_be(run, mark):
    status, _, err = run("--prompt", f"what is {mark}", "--max-tokens", 1)
    assert status == 0
    assert err.startswith(f"note: {mark} within")
    ids = npgemma.load().tokenizer.prompt(f"what is {mark}")
    assert npgemma.load().tokenizer.decode(ids) == f"what is {mark}\n"


def test_images_are_answered_in_batches_in_their_order(run, tmp_path):
    images = []
    with npgemma.image.Image.open(npgemma.example_image()) as example:
        for i, turn in enumerate((0, 90, 180)):
            images.append(tmp_path / f"{i}.png")
            example.rotate(turn).save(images[-1])
    alone = run("--image", *images, "--prompt", "caption en")
    assert alone[0] == 0
    assert [line.split(": ")[0] for line in alone[1].splitlines()] == [str(image) for image in images]
    assert run("--image", *images, "--prompt", "caption en", "--batch-size", 2) == alone
    lines = run("--image", *images, "--json", "--batch-size", 3)[1].splitlines()
    assert [json.loads(line)["image"] for line in lines] == [str(image) for image in images]


def test_boxes_are_printed_where_they_are_asked_for(run):
    _, raw, _ = run("--prompt", "detect red circle ; blue square")
    _, with_boxes, _ = run("--prompt", "detect red circle ; blue square", "--boxes")
    assert with_boxes.startswith(raw)
    lines = with_boxes.removeprefix(raw).splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["red circle", "blue square"]
    assert all("pixels" in line for line in lines)


@pytest.mark.parametrize(("most", "reason"), [(2, "length"), (60, "stop")])
def test_json_says_why_an_answer_ended(run, most, reason):
    assert json.loads(run("--json", "--max-tokens", most)[1])["finish_reason"] == reason


@pytest.mark.parametrize("start", [["cli.py"], ["-m", "npgemma"]])
def test_the_program_has_one_help_under_each_name(start):
    """The commands with a line each, examples, prompts."""
    command = [sys.executable, *start]
    shown = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for word in ("generate", "inspect", "trace", "parity", "bench", "examples:", "segment cat", "caption en"):
        assert word in shown
    assert ("python -m npgemma inspect" if start[0] == "-m" else "cli.py inspect") in shown


def test_the_version_is_said(run):
    assert run("--version") == (0, f"npgemma {npgemma.__version__}\n", "")


def test_generate_is_a_command_and_the_default(run):
    assert run("generate", "--max-tokens", 3) == run("--max-tokens", 3)


def test_a_damaged_tiff_is_told_in_one_line(tmp_path):
    """libtiff writes to stderr by itself, past Python: only a process of its own shows it."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    npgemma.image.Image.fromarray(pixels).save(tmp_path / "x.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "x.tif").read_bytes())
    data[100:400] = bytes(300)
    (tmp_path / "x.tif").write_bytes(data)
    command = [sys.executable, "cli.py", "--image", str(tmp_path / "x.tif")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_boxes_are_printed_on_a_terminal(run, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "pixels" in run("--prompt", "detect red circle")[1]
