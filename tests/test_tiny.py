"""The embedded checkpoint and how it was made."""

import itertools
import json
import math

import numpy as np
import pytest
from PIL import Image

import npgemma
from tiny import scenes
from tiny.__main__ import main
from tiny.evaluate import card, evaluate, is_right, overlap, table, write_card
from tiny.prompts import caption, examples, location_text

FOLDER = npgemma.embedded_checkpoint()
FILES = ("config.json", "model.safetensors", "tokenizer.model", "preprocessor_config.json", "example.png", "README.md")


@pytest.fixture(scope="module")
def stated():
    return json.loads((FOLDER / "evaluation.json").read_text())


def test_a_small_sample_is_answered_as_well_as_the_card_says(stated):
    found = evaluate(FOLDER, count=25)
    for task, numbers in stated["tasks"].items():
        share, asked = numbers["right"] / numbers["asked"], found["tasks"][task]["asked"]
        # So small a sample scatters: three standard deviations, and one answer more.
        margin = 3 * math.sqrt(share * (1 - share) / asked) + 1 / asked
        assert found["tasks"][task]["right"] / asked >= share - margin, task


def test_the_stated_accuracy_is_good_and_of_many_pictures(stated):
    assert stated["scenes"] >= 1000
    shares = {task: numbers["right"] / numbers["asked"] for task, numbers in stated["tasks"].items()}
    assert shares["caption"] > 0.9
    assert min(shares["count"], shares["color"], shares["shape"]) > 0.95


def test_the_card_is_what_was_measured(stated):
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == card(FOLDER, stated)


def test_the_checkpoint_is_small():
    assert sum((FOLDER / name).stat().st_size for name in FILES) < 8_000_000


def test_the_example_picture_is_captioned_rightly():
    from tiny.train import EXAMPLE_SEED, EXAMPLE_SIDE

    scene = scenes.scene(EXAMPLE_SEED)
    expected = np.asarray(scenes.draw(scene, EXAMPLE_SIDE))
    np.testing.assert_array_equal(np.asarray(Image.open(npgemma.example_picture())), expected)
    assert npgemma.load().generate(npgemma.example_picture(), "caption en").text == caption(scene.objects)


def test_seeds_never_meet():
    sets = (scenes.TRAINING_SEEDS, scenes.VALIDATION_SEEDS, scenes.HELD_OUT_SEEDS)
    assert all(one.stop <= other.start for one, other in itertools.pairwise(sets))
    training = json.loads((FOLDER / "training.json").read_text())
    assert training["pictures"] <= len(scenes.TRAINING_SEEDS)


def test_a_scene_comes_back_from_its_seed():
    seeds = range(20)
    assert [scenes.scene(seed) for seed in seeds] == [scenes.scene(seed) for seed in seeds]
    assert len({scenes.scene(seed) for seed in seeds}) == len(seeds)
    first, second = (np.asarray(scenes.draw(scenes.scene(3), 112)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_where_the_picture_shows_the_objects(seed):
    scene, side = scenes.scene(seed), 448
    object_YX = scenes.cover(scene, side)
    for i, thing in enumerate(scene.objects):
        rows, columns = np.nonzero(object_YX == i + 1)
        shown = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / side
        np.testing.assert_allclose(shown, thing.box(), atol=2.5 / side)


def test_prompts_have_one_right_answer():
    for seed in range(50):
        prompts = [prompt for _, prompt, _ in examples(scenes.scene(seed))]
        assert len(set(prompts)) == len(prompts)


def test_captions_go_from_left_to_right():
    along = (("red", 0.2), ("blue", 0.5), ("green", 0.8))
    one, two, three = (scenes.Object("star", colour, "small", x, 0.5, 0.1, (0, 0, 0)) for colour, x in along)
    assert caption([one]) == "a small red star"
    assert caption([one, two]) == "a small red star and a small blue star"
    assert caption([one, two, three]) == "a small red star, a small blue star and a small green star"


def test_boxes_are_compared_by_overlap():
    right = location_text((0.1, 0.1, 0.5, 0.5)) + " red star"
    assert right.startswith("<loc0102><loc0102><loc0512><loc0512>")
    assert is_right(location_text((0.12, 0.1, 0.5, 0.5)) + " red star", right)
    assert not is_right(location_text((0.5, 0.5, 0.9, 0.9)) + " red star", right)
    assert not is_right(location_text((0.1, 0.1, 0.5, 0.5)) + " red circle", right)
    assert not is_right(" red star", right)
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0


def test_a_checkpoint_can_be_made(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from tiny import train

    monkeypatch.setattr(train, "TOWER", (2, 2, 1e-3))
    monkeypatch.setattr(train, "MODEL", (2, 2, 1e-3))
    monkeypatch.setattr(train, "VALIDATION_SCENES", 2)
    precision = torch.get_float32_matmul_precision()
    try:
        train.train(tmp_path)
    finally:
        torch.set_float32_matmul_precision(precision)
    evaluation = evaluate(tmp_path, count=1)
    write_card(tmp_path, evaluation)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "training.json", "evaluation.json"}
    assert table(evaluation) in (tmp_path / "README.md").read_text(encoding="utf-8")
    # The same sizes as the embedded one, so that one command makes it again.
    assert npgemma.load(tmp_path).config == npgemma.load().config


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_folder_that_cannot_be_used_is_one_sentence(command, tmp_path, capsys):
    folder = tmp_path / "file"
    folder.write_text("")
    assert main([command, "--checkpoint", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_training_overwrites_no_foreign_checkpoint(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert main(["train", "--checkpoint", str(tmp_path)]) == 2
    assert "not made here" in capsys.readouterr().err
