"""cli.py: what is printed where, exit codes, aliases; and bad input, which never ends in a traceback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from support import ROOT, bad_files, rewrite, start

import cli
import npgemma
from conversion.__main__ import main as conversion_command
from npgemma import command as commands
from npgemma.porting.mistakes import inject
from tiny.training import drawing, gallery
from tiny.training.evaluate import overlap
from tiny.training.scenes import scene


@pytest.fixture
def run(capsys, random_folder, image):
    """Run a command line in this process on the random folder and the image; return status, stdout, stderr."""

    def run(*arguments, defaults=True):
        command = [arguments[0]] if arguments and arguments[0] in commands.COMMANDS else []
        given = ["--checkpoint", str(random_folder), "--image", str(image)] if defaults else []
        if command == ["inspect"]:
            given = given[:2]
        try:
            status = cli.main([*command, *given, *map(str, arguments[len(command) :])])
        except SystemExit as end:
            status = end.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


# What works


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_text_to_stdout_and_nothing_else_anywhere(run, backend, random_folder, image):
    status, out, err = run("--backend", backend, "--max-tokens", 5)
    assert (status, err) == (0, "")
    assert out == npgemma.load(random_folder).generate(image, max_new_tokens=5).text + "\n"


def test_json(run, image):
    status, out, _ = run("--json", "--max-tokens", 5, "--prompt", "ocr")
    answer = json.loads(out)
    assert status == 0
    assert (answer["image"], answer["prompt"]) == (str(image), "ocr")
    expected = npgemma.load(answer["checkpoint"]).generate(image, "ocr", max_new_tokens=5).to_dict(str(image))
    assert answer | {"timings": 0} == json.loads(json.dumps(expected | {"timings": 0}))
    assert answer["image_size"] == [50, 30]
    assert set(answer["timings"]) == {"load", "vision", "prefill", "seconds_per_token"}


def test_several_images(run, image, tmp_path):
    other = tmp_path / "other.png"
    npgemma.image.Image.new("RGB", (9, 9), "red").save(other)
    status, out, _ = run("--image", image, other, "--max-tokens", 3)
    assert status == 0
    assert out.startswith(f"{image}: ")
    assert f"\n{other}: " in out
    _, out, _ = run("--image", image, other, "--max-tokens", 3, "--json")
    assert [json.loads(line)["image"] for line in out.splitlines()] == [str(image), str(other)]


def test_names_of_the_small_ports(run, capsys, random_folder, image):
    expected = run("--max-tokens", 4, "--do-sample", "--top-p", 0.8, "--seed", 1, "--prompt", "x")
    arguments = [
        "--model_path", random_folder, "--image_file_path", image, "--max_tokens_to_generate", 4, "--top_p", 0.8,
        "--do_sample", "True", "--only_cpu", "True", "--device", "cuda", "--seed", 1, "--prompt", "x",
    ]  # fmt: skip
    assert run(*arguments, defaults=False) == expected
    status, _, err = run("--do_sample", "False", "--temperature", 0.8, "--top_p", 0.9, "--max-tokens", 2)
    assert status == 0
    assert err == "note: --temperature, --top-p only matter with --do-sample; decoding greedily\n"


def test_a_seed_repeats(run):
    arguments = ("--do-sample", "--temperature", 2, "--seed", 7, "--max-tokens", 12)
    assert run(*arguments) == run(*arguments)


def true_things():
    """Box (left, top, right, bottom; in pixels of the example image) and mask of each thing in it, by name."""
    example, side = scene(gallery.EXAMPLE_SEED), gallery.SIDE
    object_YX = drawing.cover(example, side)
    found = {}
    for i, (thing, (box, _)) in enumerate(zip(example.objects, drawing.shown(example))):
        top, left, bottom, right = (edge * side for edge in box)
        found[thing.name] = (left, top, right, bottom), object_YX == i + 1
    return found


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_detected_boxes_are_printed_and_drawn(run, tmp_path, backend):
    """On the example image, whose truth is known."""
    out = tmp_path / "drawn.png"
    options = ["--prompt", "detect red circle ; blue square", "--annotate", out, "--json", "--backend", backend]
    status, stdout, err = run(*options, defaults=False)
    assert (status, err) == (0, "")
    objects = json.loads(stdout)["objects"]
    assert [found["label"] for found in objects] == ["red circle", "blue square"]
    for found in objects:
        assert set(found) == {"label", "box"}
        assert overlap(found["box"], true_things()[found["label"]][0]) > 0.8
    with npgemma.image.Image.open(out) as drawn:
        assert drawn.size == (gallery.SIDE, gallery.SIDE)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_segmented_mask_is_printed_drawn_and_written(run, tmp_path, backend):
    out, masks = tmp_path / "drawn.png", tmp_path / "deep" / "masks"
    options = ["--annotate", out, "--mask-dir", masks, "--json", "--backend", backend]
    status, stdout, err = run("--prompt", "segment red circle", *options, defaults=False)
    assert (status, err) == (0, "")
    [found] = json.loads(stdout)["objects"]
    [path] = masks.iterdir()
    assert path.name == "example-1-red-circle.png"
    with npgemma.image.Image.open(path) as image:
        mask = np.asarray(image.convert("L")) == 255
    _, true = true_things()["red circle"]
    assert (mask & true).sum() / (mask | true).sum() > 0.8
    rows, columns = found["mask"]["size"]
    runs = np.repeat(np.arange(len(found["mask"]["counts"])) % 2, found["mask"]["counts"])
    np.testing.assert_array_equal(runs.reshape(columns, rows).T == 1, mask)
    with npgemma.image.Image.open(out) as drawn, npgemma.image.Image.open(npgemma.example_image()) as plain:
        changed = (np.asarray(drawn) != np.asarray(plain.convert("RGB"))).any(axis=-1)
    assert changed[mask].mean() > 0.95


def test_an_answer_without_masks_writes_none(run, tmp_path):
    status, _, err = run("--prompt", "detect red circle", "--mask-dir", tmp_path / "masks", defaults=False)
    assert status == 0
    assert err.startswith("note: the answer has no mask")
    assert err.count("\n") == 1


def test_a_mask_that_was_cut_off_is_said_to_be(run, tmp_path):
    options = ["--prompt", "segment red circle", "--max-tokens", 12, "--mask-dir", tmp_path / "masks"]
    status, out, err = run(*options, defaults=False)
    assert status == 0
    assert out.count("<seg") == 8
    assert "8 of the 16 tokens of a mask" in err
    assert "--max-new-tokens" in err
    assert list(tmp_path.iterdir()) == []


def test_a_mask_without_a_codebook_is_said_to_be(run, tmp_path):
    folder = shutil.copytree(npgemma.embedded_checkpoint(), tmp_path / "bare", ignore=lambda *_: {"vae-oid.npz"})
    options = ["--checkpoint", folder, "--prompt", "segment red circle", "--mask-dir", tmp_path / "masks"]
    status, _, err = run(*options, defaults=False)
    assert (status, "vae-oid.npz" in err) == (0, True)
    assert not (tmp_path / "masks").exists()


def test_what_was_asked_is_not_said_to_ask(run, tmp_path):
    """Asked to segment, or to detect, without an answer of that kind."""
    for prompt, hint in (("segment red circle", ""), ("detect red circle", "segment"), ("caption en", "segment")):
        _, _, err = run("--prompt", prompt, "--max-tokens", 1, "--mask-dir", tmp_path / "masks", defaults=False)
        assert err.startswith("note: the answer has no mask")
        assert ("ask 'segment" in err) == bool(hint)
        _, _, err = run("--prompt", prompt, "--max-tokens", 1, "--annotate", tmp_path / "x.png", defaults=False)
        assert ("ask 'detect" in err) == (prompt == "caption en")


def test_a_font_can_be_named(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.ttf")
    (tmp_path / "damaged.ttf").write_bytes(bytes(99))
    for name in ("none.ttf", "pipe.ttf", "damaged.ttf"):
        refused = run("--font", tmp_path / name, "--annotate", tmp_path / "drawn.png", defaults=False)
        assert_refused(refused, name)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("caption en", "a small blue square, a small black star and a large red circle"),
        ("caption de", "ein kleines blaues Quadrat, ein kleiner schwarzer Stern und ein großer roter Kreis"),
        ("ocr", "TAXI"),
        ("answer en how many objects", "3"),
        ("answer en what color is the text", "red"),
        ("answer en is the red circle left or right of the blue square", "right"),
        ("answer en is there a green star", "no"),
    ],
)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_every_prompt_in_words_is_right_on_the_example(run, backend, prompt, answer):
    status, out, err = run("--prompt", prompt, "--backend", backend, defaults=False)
    assert (status, out, err) == (0, answer + "\n", "")


def test_an_answer_without_boxes_writes_no_image(run, tmp_path):
    status, out, err = run("--annotate", tmp_path / "drawn.png", defaults=False)
    assert status == 0
    assert out
    assert err.startswith("note: the answer names no box")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prompt", ["", "a\x01\tb", "héllo 猫", "<loc0001>", "x\n"])
def test_any_prompt_is_text(run, prompt):
    status, out, err = run("--prompt", prompt, "--max-tokens", 2)
    assert (status, err) == (0, "")
    assert out.endswith("\n")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_dtypes(run, dtype, backend):
    assert run("--dtype", dtype, "--backend", backend, "--max-tokens", 2)[0] == 0


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_trace(run, tmp_path, backend):
    out = tmp_path / "trace.safetensors"
    status, stdout, err = run("trace", "--out", out, "--max-tokens", 2, "--backend", backend)
    assert (status, stdout) == (0, "")
    assert "arrays" in err
    trace = load_file(out)
    assert trace["prefill.0/run_blocks.0/block.1/grouped_query_attention.0/q_BTNH"].dtype == np.float32
    assert trace["step.0/ids_BT"].shape == (1, 1)
    assert list(tmp_path.iterdir()) == [out]


def test_trace_only(run, tmp_path):
    out = tmp_path / "trace.safetensors"
    assert run("trace", "--out", out, "--only", "*/logit_BV", "--max-tokens", 3)[0] == 0
    assert sorted(load_file(out)) == ["prefill.0/logit_BV", "step.0/logit_BV", "step.1/logit_BV"]


def test_trace_has_a_manifest_in_the_file_and_beside_it(run, tmp_path):
    out, beside = tmp_path / "trace.safetensors", tmp_path / "manifest.json"
    assert run("trace", "--out", out, "--max-tokens", 2, "--manifest", beside)[0] == 0
    with safe_open(out, framework="numpy") as file:
        inside = json.loads(file.metadata()["manifest"])
        order = list(file.offset_keys())
    assert json.loads(beside.read_text()) == inside
    assert [array["name"] for array in inside["arrays"]] == order
    assert inside["answer"] == json.loads(run("--max-tokens", 2, "--json")[1])["token_ids"]


def test_trace_of_given_tokens_and_steps(run, tmp_path):
    out, ids = tmp_path / "trace.safetensors", tmp_path / "ids.txt"
    ids.write_text("7\n1\n9\n8\n")
    status, stdout, _ = run("trace", "--out", out, "--force-ids", ids, "--steps", "1:2", "--json")
    assert status == 0
    assert json.loads(stdout)["token_ids"] == [7, 1, 9, 8]
    trace = load_file(out)
    assert {name.split("/")[0] for name in trace if name.startswith("step")} == {"step.1"}
    # An end token among them ends nothing.
    assert trace["step.1/ids_BT"].tolist() == [[1]]
    again = tmp_path / "logits.npz"
    np.savez(again, token_ids=np.array([7, 1, 9, 8]), logits=np.zeros((4, 5)))
    assert run("trace", "--out", tmp_path / "b", "--force-ids", again, "--steps", "1:2")[0] == 0
    assert all(np.array_equal(array, trace[name]) for name, array in load_file(tmp_path / "b").items())


@pytest.mark.parametrize(
    ("text", "said"),
    [("\n", "at least one"), ("7 x", "one token id a line"), ("9" * 5000, "digits"), ("7\n-1", "between 0 and"),
     ("1 " * 300, "context")],
)  # fmt: skip
def test_trace_of_tokens_that_cannot_be(run, tmp_path, text, said):
    (tmp_path / "ids.txt").write_text(text)
    outcome = run("trace", "--out", tmp_path / "x", "--force-ids", tmp_path / "ids.txt")
    assert_refused(outcome, said)
    assert "ids.txt" in outcome[2]
    assert "'x'" not in outcome[2]
    assert [path.name for path in tmp_path.iterdir()] == ["ids.txt"]


def test_given_tokens_may_fill_the_context(run, tmp_path, copied):
    """To its last place: with one more they are refused."""
    model, config = npgemma.load(copied), json.loads((copied / "config.json").read_text())
    read = model.config.image_tokens + len(model.tokenizer.prompt("x"))
    config["text_config"]["max_position_embeddings"] = read + 3
    (copied / "config.json").write_text(json.dumps(config))
    for count, status in ((3, 0), (4, 2)):
        (tmp_path / "ids.txt").write_text("7 " * count)
        arguments = ("--prompt", "x", "--force-ids", tmp_path / "ids.txt", "--out", tmp_path / str(count))
        arguments += ("--checkpoint", copied)
        assert run("trace", "--only", "*logit_BV", *arguments)[0] == status


def test_parity_passes_and_says_how_much_of_the_bound_was_used(run):
    status, out, _ = run("parity", "--dtype", "float64")
    assert status == 0
    assert out.splitlines()[-1].endswith("8 of 8 tokens equal; passed")
    status, out, _ = run("parity", "--json")
    report = json.loads(out)
    assert report["passed"]
    assert report["arrays"] > 1000
    assert all(0 <= place["percent_of_bound"] < 100 for place in report["places"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parity_judges_every_operation_by_itself(run, dtype):
    status, out, _ = run("parity", "--dtype", dtype, "--max-tokens", 3, "--json", defaults=False)
    report = json.loads(out)
    assert status == 0
    assert report["past_limit"] == []
    kinds = {row["kind"]: row for row in report["own_errors"]}
    assert set(kinds) == {"sum", "product", "norm", "attention weights", "activation", "rotation"}
    assert all(0 < row["percent_of_limit"] < 100 for row in kinds.values())


def test_parity_sees_an_epsilon_that_hides_within_the_bound(run):
    with inject("vision-epsilon", "torch_ref"):
        status, out, _ = run("parity", "--max-tokens", 1, "--json")
    report = json.loads(out)
    assert status == 1
    assert report["past_limit"][0] == "encode_image.0/encode.0/block.0/self_attention.0/x_BTD"


def test_parity_says_what_int8_costs(run):
    status, out, _ = run("parity", "--dtype", "int8", "--json", defaults=False)
    report = json.loads(out)
    assert (status, report["passed"], report["dtype"]) == (0, True, "int8")
    # Weights in eight bits are felt: more than float32's rounding.
    assert max(place["relative_l2"] for place in report["places"]) > 1e-3


def test_parity_of_drawn_tokens(run):
    assert run("parity", "--do-sample", "--temperature", 2)[0] == 0


def test_parity_fails_past_a_bound(run, monkeypatch):
    monkeypatch.setattr("torch_ref.siglip.layer_norm", lambda x, p, e: x * p.scale + p.bias)
    status, out, _ = run("parity")
    assert status == 1
    assert out.splitlines()[-1].endswith("FAILED")


def test_inspect(run):
    status, out, _ = run("inspect", "--tensors")
    assert status == 0
    assert "text.blocks.*.attn.q" in out
    status, out, _ = run("inspect", "--json")
    report = json.loads(out)
    assert report["parameters"] == sum(int(np.prod(tensor["shape"])) for tensor in report["tensors"])


@pytest.mark.parametrize("command", [[], *[[name] for name in commands.COMMANDS]])
def test_help(run, command):
    status, out, _ = run(*command, "--help", defaults=False)
    assert status == 0
    assert "--checkpoint" in out


# What does not


def assert_refused(outcome, says=""):
    status, out, err = outcome
    assert (status, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-tokens", "0"], "max_new_tokens"),
        (["--max-tokens", "many"], "--max-tokens"),
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--top-p", "1.5"], "top_p"),
        (["--top-k", "-3"], "top_k"),
        (["--seed", "-1"], "seed"),
        (["--do_sample", "perhaps"], "perhaps"),
        (["--device", "cuda"], "NumPy runs on the CPU"),
        (["--backend", "jax"], "jax"),
        (["--unknown"], "--unknown"),
        (["--prompt", "x " * 90], "context"),
        (["--checkpoint", "/nowhere"], "/nowhere"),
        (["trace"], "--out"),
        (["--annotate", "out.txt"], "out.png"),
        (["--annotate", ""], "out.png"),
        (["--annotate", "/tmp"], "/tmp"),
        (["--annotate", "/nowhere/out.png"], "/nowhere"),
        (["--mask-dir", "/dev/null/masks"], "/dev/null/masks"),
        (["--mask-dir", ""], "folder"),
        (["trace", "--out", "/nowhere/x.safetensors"], "/nowhere"),
        (["trace", "--out", "x.safetensors", "--steps", "3"], "range"),
        (["trace", "--out", "x.safetensors", "--force-ids", "/nowhere/ids.txt"], "/nowhere/ids.txt"),
        (["trace", "--out", "x.safetensors", "--answer", "red"], "add --backward"),
        (["trace", "--out", "x.safetensors", "--backward", "--backend", "torch"], "leave out --backend"),
        (["trace", "--list", "--backward", "--only", "nothing"], "no gradient matches --only"),
        (["trace", "--out", "/tmp"], "/tmp"),
        (["trace", "--out", "/dev/null"], "/dev/null"),
        (["trace", "--out", ""], "it is a folder"),
        (["--checkpoint", ""], "config.json"),
        (["--image", ""], "no image"),
        (["diagnose", "--logits", ""], "no array logits"),
        (["inspect", "--checkpoint", "/nowhere"], "/nowhere"),
        (["parity", "--checkpoint", "/nowhere"], "/nowhere"),
    ],
)
def test_arguments_that_cannot_be(run, arguments, says):
    assert_refused(run(*arguments), says)


def test_images_that_are_none(run, tmp_path):
    for name, says in bad_files(tmp_path).items():
        assert_refused(run("--image", tmp_path / name), says)


def test_a_pattern_that_matches_nothing_leaves_no_file(run, tmp_path):
    assert_refused(run("trace", "--out", tmp_path / "x.safetensors", "--only", "nothing"), "--only")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [[], ["parity"], ["trace", "--out", "x.safetensors"]])
def test_weights_that_are_not_numbers(run, copied, monkeypatch, tmp_path, command):
    def change(name, dtype, array):
        array[..., 0] = np.nan if name.endswith("position_embedding.weight") else array[..., 0]
        return [(name, dtype, array)]

    monkeypatch.chdir(tmp_path)
    rewrite(copied, change)
    assert_refused(run(*command, "--checkpoint", copied), "vision.position_embedding")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_infinite_weights_are_one_sentence_too(run, copied):
    def change(name, dtype, array):
        array[..., 0] = np.inf if name.endswith("layers.0.mlp.up_proj.weight") else array[..., 0]
        return [(name, dtype, array)]

    rewrite(copied, change)
    assert_refused(run("--checkpoint", copied), "text.blocks.0.mlp.up")


@pytest.mark.parametrize("arguments", [["--seed", "-1", "paligemma-3b-224", "x"], ["nosuch", "x"], []])
def test_synthesize_of_what_cannot_be(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    try:
        status = conversion_command(["synthesize", *arguments])
    except SystemExit as end:
        status = end.code
    assert_refused((status, *capsys.readouterr()))
    assert list(tmp_path.iterdir()) == []


def test_damaged_folders(run, copied):
    (copied / "tokenizer.model").write_bytes(b"garbage")
    assert_refused(run("--checkpoint", copied), "tokenizer.model")
    (copied / "tokenizer.model").unlink()
    assert_refused(run("--checkpoint", copied), "tokenizer.model")
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    assert_refused(run("--checkpoint", copied), "model.safetensors")
    assert_refused(run("inspect", "--checkpoint", copied), "model.safetensors")
    (copied / "config.json").write_text("{")
    assert_refused(run("--checkpoint", copied), "config.json")


def test_torch_backend_without_torch_says_what_to_install(random_folder, image):
    code = "import sys; sys.modules['torch'] = None; import cli; sys.exit(cli.main(sys.argv[1:]))"
    arguments = ["--backend", "torch", "--checkpoint", random_folder, "--image", image]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert_refused((result.returncode, result.stdout, result.stderr), "pip install torch")


def test_a_cuda_device_that_is_not_there(run):
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    assert_refused(run("--backend", "torch", "--device", "cuda"), "no CUDA device")
    assert_refused(run("parity", "--device", "cuda"), "no CUDA device")


def with_interrupts():
    """A shell may have started the tests with the signal ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_ctrl_c_ends_with_what_there_is(random_folder, image, tmp_path, extra):
    """The process, which has the console script's name, is interrupted while tokens come."""
    begun, script = tmp_path / "begun", tmp_path / "npgemma"
    script.write_text(
        f"import pathlib, sys, time\nsys.path[0] = {str(ROOT)!r}\nimport cli, npgemma.machinery.model as m\n"
        "def decode(self, ids):\n"
        "    if len(ids) > 1:\n"
        "        pathlib.Path(sys.argv[1]).touch()\n"
        "    time.sleep(0.2)\n"
        "    return 'abc'[: len(ids)]\n"
        "m.Tokenizer.decode_complete = decode\n"
        "sys.exit(cli.main(sys.argv[2:]))"
    )
    arguments = [begun, "--checkpoint", random_folder, "--image", image, "--prompt", "caption en", *extra]
    command = [sys.executable, script, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, preexec_fn=with_interrupts, **pipes)
    while not begun.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == ""
    text = json.loads(out)["text"] if extra else out.rstrip("\n")
    assert text
    assert "abc".startswith(text)


def beside(folder, *words):
    """Run Python with what lies in a folder before the project's packages."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    settings = {"cwd": folder, "env": environment, "preexec_fn": with_interrupts}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **settings)


@pytest.mark.parametrize("program", [str(ROOT / "cli.py"), "-m npgemma", "-m conversion", "npgemma", "theirs.py"])
def test_ctrl_c_while_numpy_is_imported_ends_our_programs_quietly(tmp_path, program):
    """The console script, npgemma, is like the one that pip writes; a program that is not ours is left alone."""
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    for name in ("npgemma", "theirs.py"):
        (tmp_path / name).write_text("from npgemma.command import main\nmain()\n")
    result = beside(tmp_path, *program.split())
    ended = (result.returncode, "KeyboardInterrupt" in result.stderr, bool(result.stderr))
    assert ended == ((-signal.SIGINT, True, True) if program == "theirs.py" else (130, False, False))


@pytest.mark.parametrize("name", ["conversion.py", "torch_ref.py", "conversion/__init__.py"])
def test_a_file_that_hides_a_package_of_ours_is_named(tmp_path, name):
    """It is not run, and the twin's is needed by some commands only."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("print('was run')")
    says = f"'{tmp_path / name}' hides npgemma's package"
    assert says in beside(tmp_path, "-m", "npgemma", "parity").stderr.splitlines()[0]
    result = beside(tmp_path, "-c", "import npgemma\nnpgemma.load()\nprint('loaded')")
    assert result.stdout == "loaded\n" if name == "torch_ref.py" else f"InputError: {says}" in result.stderr
    assert "was run" not in result.stdout


def test_a_closed_pipe_ends_quietly(random_folder, image):
    reader, writer = os.pipe()
    os.close(reader)
    process = start("--checkpoint", random_folder, "--image", image, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_error(random_folder, image, closed):
    command = f'exec "$0" cli.py --checkpoint "$1" --image "$2" --max-tokens 2 {closed}'
    arguments = ["sh", "-c", command, sys.executable, str(random_folder), str(image)]
    result = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_full_disk_is_one_sentence(random_folder, image, extra):
    with open("/dev/full", "w") as full:
        process = start("--checkpoint", random_folder, "--image", image, *extra, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "error: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_too_little_memory_while_running(run, monkeypatch, backend):
    """Torch has an error of its own for it on the CPU, which must end as NumPy's does."""

    def greedy(logit_BV):
        raise {"numpy": MemoryError(), "torch": RuntimeError("DefaultCPUAllocator: can't allocate memory")}[backend]

    monkeypatch.setattr({"numpy": "npgemma.generate.greedy", "torch": "torch_ref.generate.greedy"}[backend], greedy)
    assert_refused(run("--backend", backend), "not enough memory")


def test_extreme_settings_are_not_errors(run):
    huge = str(10**30)
    arguments = ["--do-sample", "--top-k", huge, "--seed", huge, "--temperature", "1e-320", "--max-tokens", huge]
    for backend in ("numpy", "torch"):
        status, out, err = run("--backend", backend, *arguments)
        assert (status, err) == (0, "")
        assert out


def test_an_output_that_cannot_show_the_characters(random_folder, image):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = start("--checkpoint", random_folder, "--image", image, "--max-tokens", "40", env=environment)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


@pytest.mark.slow
def test_too_little_memory_for_the_weights(copied, image):
    """The system's own limit: float64 weights that the address space cannot hold."""
    import resource

    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["vocab_size"] = rows = 10**7
    (copied / "config.json").write_text(json.dumps(config))
    width = config["text_config"]["hidden_size"]
    table = "F16", np.zeros((rows, width), np.float16)
    rewrite(copied, lambda n, d, a: [(n, *table) if "embed_tokens" in n else (n, d, a)])
    limit = 5 * 2**29
    process = start(
        "--checkpoint", copied, "--image", image, "--dtype", "float64",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert_refused((process.returncode, out, err), "GB as float64")
