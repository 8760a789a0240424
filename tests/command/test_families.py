"""cli.py with PaliGemma 2, and with several images in a prompt: every command, as with PaliGemma 1 and one image."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from support import GEMMA_2

import cli
import npgemma
import torch_ref
from conversion.folder import describe
from npgemma.image import load_pixels
from npgemma.machinery.backend import to_numpy

BACKENDS = {"numpy": npgemma, "torch": torch_ref}


@pytest.fixture
def run(capsys, gemma_2_folder, image):
    """Run a command line on a PaliGemma 2; return status, stdout, stderr."""

    def run(*arguments, folder=gemma_2_folder, images=(image,)):
        command = [arguments[0]] if arguments and not str(arguments[0]).startswith("-") else []
        given = ["--checkpoint", str(folder)]
        if command not in (["inspect"], ["bench"]):
            given += ["--image", *map(str, images)]
        status = cli.main([*command, *given, *map(str, arguments[len(command) :])])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


@pytest.fixture
def images(tmp_path):
    """Four files."""
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        noise = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3)).astype(np.uint8)
        npgemma.image.Image.fromarray(noise).save(path)
    return paths


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_answers(run, backend, dtype, gemma_2_folder, image):
    if (backend, dtype) == ("torch", "int8"):
        assert run("--backend", backend, "--dtype", dtype)[0] == 2
        return
    status, out, err = run("--backend", backend, "--dtype", dtype, "--max-tokens", 4, "--json")
    assert (status, err) == (0, "")
    expected = BACKENDS[backend].load(gemma_2_folder, dtype=dtype).generate(image, max_new_tokens=4)
    assert json.loads(out)["token_ids"] == expected.token_ids


def test_static_shapes_answer_alike(run):
    plain, fixed = (
        json.loads(run("--backend", "torch", *extra, "--json", "--max-tokens", 9)[1])["token_ids"]
        for extra in ([], ["--static"])
    )
    assert plain == fixed
    assert len(set(plain)) > 1


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "int8"])
def test_parity(run, dtype):
    status, out, err = run("parity", "--dtype", dtype, "--max-tokens", 3, "--json")
    report = json.loads(out)
    assert err == ""
    # Tokens of rounded weights may differ: random weights leave narrow margins.
    assert report["first_past_bound"] is None or dtype == "int8"
    assert status == 0 or dtype in ("bfloat16", "int8")
    assert report["arrays"] > 300


@pytest.mark.parametrize("backend", BACKENDS)
def test_trace(run, tmp_path, backend):
    out = tmp_path / "trace.safetensors"
    assert run("trace", "--out", out, "--max-tokens", 2, "--backend", backend)[0] == 0
    names = load_file(out)
    assert "prefill.0/run_blocks.0/near_BTS" in names
    assert "step.0/run_blocks.0/block.2/grouped_query_attention.0/attend.0/capped_BKGTS" in names


def test_inspect(run, gemma_2_folder):
    status, out, _ = run("inspect", "--tensors")
    assert status == 0
    assert "2 sliding_attention and 1 full_attention" in out
    assert "eos_tokens 1 3" in out
    assert "post_feedforward_layernorm" in out
    assert f"{describe(gemma_2_folder)['parameters']:,}" in out


@pytest.mark.parametrize("arguments", [[], ["--dtype", "int8"], ["--backend", "torch", "--dtype", "bfloat16"]])
def test_bench(run, arguments, monkeypatch):
    monkeypatch.setattr(
        "npgemma.benchmarks.speed.limits", lambda model: {"bytes_per_second": 1e10, "operations_per_second": 1e11}
    )
    status, out, err = run("bench", "--json", "--batches", 2, "--tokens", 1, *arguments)
    assert (status, err) == (0, "")
    assert json.loads(out)["stages"]["token, batch 2"]["seconds"] > 0
    for words in (["--tokens", 9 * "9"], ["--batches", 12 * "9"]):
        assert "error: --tokens should fit the model's context" in run("bench", *words)[2]


def test_an_end_token_of_the_decoder_ends_an_answer(gemma_2_folder, image, monkeypatch):
    """Id 3 stands in text_config's list only."""
    for backend in BACKENDS.values():
        model = backend.load(gemma_2_folder)
        script = iter([7, 8, 3, 9])
        monkeypatch.setattr(
            type(model),
            "chooser",
            lambda *_, model=model, script=script: lambda _: model.backend.to_array([next(script)]),
        )
        answer = model.generate(image, max_new_tokens=4)
        assert (answer.token_ids, answer.finish_reason) == ([7, 8, 3], "stop")
        monkeypatch.undo()
    assert GEMMA_2.eos_tokens == (1, 3)


# Several images in a prompt


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_per_prompt(run, backend, images, gemma_2_folder):
    """Two prompts about two images each."""
    arguments = ["--backend", backend, "--images-per-prompt", 2, "--max-tokens", 5]
    status, out, err = run(*arguments, "--json", images=images)
    assert (status, err) == (0, "")
    answers = [json.loads(line) for line in out.splitlines()]
    model = BACKENDS[backend].load(gemma_2_folder)
    for answer, pair in zip(answers, [images[:2], images[2:]], strict=True):
        assert answer["image"] == list(map(str, pair))
        assert answer["token_ids"] == model.generate(pair, max_new_tokens=5).token_ids
    assert answers[0]["token_ids"] != answers[1]["token_ids"]
    out = run(*arguments, images=images)[1]
    assert out.startswith(f"{images[0]}, {images[1]}: ")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_form_of_several_images_gives_the_same_answer(backend, images, random_folder):
    model, pair = BACKENDS[backend].load(random_folder), images[:2]
    expected = model.generate(pair, max_new_tokens=6).token_ids
    pixels = np.stack([load_pixels(path, 28) for path in pair], axis=1)
    assert pixels.shape == (1, 2, 28, 28, 3)
    for form in (pixels, [load_pixels(path, 28) for path in pair], tuple(map(npgemma.image.Image.open, pair))):
        assert model.generate(form, max_new_tokens=6).token_ids == expected
    # Their order matters.
    in_order, reversed_ = (to_numpy(model.logits(x, [[2, 5, 6]], 3)) for x in (pixels, pixels[:, ::-1].copy()))
    assert np.abs(in_order - reversed_)[0, -1].max() > 1e-3
    batch = model.generate_batch([pair, images[2:]], ["caption en", "answer en how many objects"], max_new_tokens=6)
    assert batch[0].token_ids == expected
    one = model.generate(pair[0], max_new_tokens=6).token_ids
    assert model.generate([pair[0]], max_new_tokens=6).token_ids == one


@pytest.mark.parametrize("backend", BACKENDS)
def test_greedy_is_argmax_of_the_logits_of_several_images(backend, images, random_folder):
    model = BACKENDS[backend].load(random_folder)
    answer = model.generate(images[:3], "caption en", max_new_tokens=6).token_ids
    prompt = model.tokenizer.prompt("caption en")
    pixels = np.stack([load_pixels(path, 28) for path in images[:3]], axis=1)
    logits = to_numpy(model.logits(pixels, [prompt + answer[:-1]], len(prompt)))
    assert logits.shape[1] == 3 * 16 + len(prompt) + 5
    assert logits[0, -6:, : model.tokenizer.size].argmax(axis=-1).tolist() == answer


def test_other_commands_take_several_images(run, images, tmp_path):
    out = tmp_path / "trace.safetensors"
    arguments = ["--images-per-prompt", 2, "--max-tokens", 1]
    assert run("trace", "--out", out, *arguments, images=images[:2])[0] == 0
    assert load_file(out)["encode_images.0/pixels_BIYXC"].shape == (1, 2, 28, 28, 3)
    status, out, _ = run("parity", *arguments, "--json", images=images[:2])
    assert status == 0
    assert json.loads(out)["image"] == list(map(str, images[:2]))


@pytest.mark.parametrize(
    ("count", "arguments", "says"),
    [
        (3, ["--images-per-prompt", 2], "should divide"),
        (4, ["parity", "--images-per-prompt", 2], "takes 2 images, found 4"),
        (2, ["--images-per-prompt", 2, "--annotate", "x.png"], "draw on one image"),
        (4, ["--images-per-prompt", 4, "--prompt", "x " * 40], "64 image tokens"),
    ],
)
def test_what_cannot_be_is_refused(run, images, count, arguments, says):
    status, out, err = run(*arguments, images=images[:count])
    assert (status, out) == (2, "")
    assert says in err


def test_prompts_of_a_batch_have_equally_many_images(images, random_folder):
    with pytest.raises(npgemma.InputError, match="equally many images"):
        npgemma.load(random_folder).generate_batch([images[:2], images[2]], ["ocr", "ocr"])


@pytest.mark.parametrize("shape", [(1, 0, 28, 28, 3), (28, 28, 3), (1, 1, 1, 28, 28, 3)])
def test_pixels_of_another_kind(shape, random_folder):
    with pytest.raises(npgemma.InputError, match="pixels of shape"):
        npgemma.load(random_folder).logits(np.zeros(shape), [[2, 5]], 2)
