"""The embedded checkpoint and how it was made."""

import itertools
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import npgemma
from conversion.codebook import FILE, read_codebook
from npgemma.answer import place_mask
from npgemma.params import leaves
from npgemma.segmentation import decode_masks
from tiny.training import drawing, gallery, prompts, scenes
from tiny.training.__main__ import main
from tiny.training.card import OVERLAPS, TASKS, missed, overlap_table, table, write_card
from tiny.training.codebook import Codebook
from tiny.training.evaluate import Tally, codebook_of, evaluate, held_out_examples, overlap, score

FOLDER = npgemma.embedded_checkpoint()
# What a user of the checkpoint needs.
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    FILE,
)
SEEDS = range(40)


@pytest.fixture(scope="module")
def stated():
    return json.loads((FOLDER / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def model():
    return npgemma.load()


# The checkpoint


@pytest.mark.slow
def test_a_small_sample_is_answered_as_well_as_the_card_says(stated):
    found = evaluate(FOLDER, count=25)
    for task, numbers in stated["tasks"].items():
        share, asked = numbers["right"] / numbers["asked"], found["tasks"][task]["asked"]
        # So small a sample scatters: three standard deviations, and one answer more.
        margin = 3 * math.sqrt(share * (1 - share) / asked) + 1 / asked
        assert found["tasks"][task]["right"] / asked >= share - margin, task


def test_the_stated_accuracy_is_of_many_pictures(stated):
    assert stated["scenes"] >= 1000
    assert stated["light"]["scenes"] >= 500
    assert set(stated["tasks"]) == set(stated["light"]["tasks"]) == set(TASKS)


def test_every_group_of_scenes_is_counted(stated):
    kinds = {f"background: {kind}" for kind in (*scenes.BACKGROUNDS, "clutter", "light", "middle", "dark")}
    shapes = {f"picture: {shape}" for shape in ("square", "nearly square", "wide", "high")}
    assert set(stated["groups"]) == kinds | shapes
    for part in ("background: light", "background: middle", "background: dark"), shapes:
        assert sum(stated["groups"][group]["caption"]["asked"] for group in part) == stated["scenes"]


def test_the_checkpoint_is_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.suffix not in (".py", ".pyc")) < 12_500_000


def test_sizes_that_a_port_could_exchange_differ():
    config = npgemma.load().config
    vision, text = config.vision, config.text
    assert text.query_heads > text.key_value_heads > 1
    widths = [vision.width, text.width, text.head_width, text.query_heads * text.head_width, config.image_tokens]
    widths += [vision.mlp_width, text.mlp_width, text.key_value_heads * text.head_width, vision.width // vision.heads]
    assert len(set(widths)) == len(widths)


def test_the_example_image_is_the_scene_it_is_said_to_be():
    expected = np.asarray(drawing.draw(scenes.scene(gallery.EXAMPLE_SEED), gallery.SIDE))
    np.testing.assert_array_equal(np.asarray(Image.open(npgemma.example_image())), expected)


def test_every_task_is_right_on_the_example_image(model):
    scene = scenes.scene(gallery.EXAMPLE_SEED)
    tallies = {task: Tally() for task in TASKS}
    for example in held_out_examples(scene):
        answer = model.generate(npgemma.example_image(), example.prompt).text
        score(tallies, scene, example, answer, codebook_of(FOLDER))
    asked = {task: tally for task, tally in tallies.items() if tally.asked}
    assert set(asked) >= {"caption", "caption in German", "ocr", "detect", "detect two", "segment", "position"}
    assert [task for task, tally in asked.items() if tally.right < tally.asked] == []


@pytest.mark.slow
def test_the_gallery_shows_what_the_model_says(model):
    shown = json.loads((FOLDER / gallery.FOLDER / gallery.FILE).read_text(encoding="utf-8"))
    items = gallery.items(model, codebook_of(FOLDER))
    assert len(items) == 8
    for item, said in zip(items, shown, strict=True):
        assert (item.name, item.prompt) == (said["name"], said["prompt"])
        assert model.generate(item.picture, item.prompt, max_new_tokens=60).text == said["answer"]
        assert (FOLDER / gallery.FOLDER / f"{item.name}.png").exists()


def test_an_answer_about_a_picture_of_nothing_known_ends_by_itself(model):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3)).astype(np.uint8))
    for picture in (gallery.unknown(), noise, Image.new("RGB", (9, 9)), Image.new("L", (300, 20), 255)):
        for prompt in ("caption en", "caption de", "ocr", "detect red circle", "segment red circle"):
            assert model.generate(picture, prompt).finish_reason == "stop", prompt


def test_the_codebook_says_masks_it_has_not_seen():
    """Encoded by torch, decoded by the port: what comes back covers what went in."""
    network = Codebook()
    with np.load(FOLDER / FILE) as file:
        network.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
    masks = np.stack([mask for seed in scenes.HELD_OUT_SEEDS[:100] for _, mask in drawing.shown(scenes.scene(seed))])
    decoded = decode_masks(network.encode(torch.from_numpy(masks)).numpy(), read_codebook(FOLDER / FILE)) > 0
    true = masks > 0.5
    overlaps = (decoded & true).sum(axis=(1, 2)) / (decoded | true).sum(axis=(1, 2))
    assert overlaps.mean() > 0.93
    assert overlaps.min() > 0.6


# The world


def test_seeds_never_meet():
    sets = (scenes.TRAINING_SEEDS, scenes.VALIDATION_SEEDS, scenes.HELD_OUT_SEEDS)
    assert all(one.stop <= other.start for one, other in itertools.pairwise(sets))
    training = json.loads((FOLDER / "training.json").read_text())
    assert training["pictures"] <= len(scenes.TRAINING_SEEDS)


def test_a_scene_comes_back_from_its_seed():
    assert [scenes.scene(seed) for seed in SEEDS] == [scenes.scene(seed) for seed in SEEDS]
    assert len({scenes.scene(seed) for seed in SEEDS}) == len(SEEDS)
    first, second = (np.asarray(drawing.draw(scenes.scene(3), 112)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_world_is_as_large_as_it_is_said_to_be():
    drawn = [scenes.scene(seed) for seed in range(600)]
    assert {len(scene.objects) for scene in drawn} == {0, 1, 2, 3, 4}
    assert 0.3 < np.mean([bool(scene.texts) for scene in drawn]) < 0.5
    assert {len(scene.texts[0].text) for scene in drawn if scene.texts} == {1, 2, 3, 4}
    things = [thing for scene in drawn for thing in scene.objects]
    assert {thing.shape for thing in things} == set(scenes.SHAPES)
    assert {thing.colour for thing in things} == set(scenes.COLOURS)
    assert {scene.background.kind for scene in drawn} == {*scenes.BACKGROUNDS, "clutter"}
    lightness = [scene.background.lightness for scene in drawn]
    assert min(lightness.count(name) for name in ("light", "middle", "dark")) > 100
    aspects = sorted(scene.aspect for scene in drawn)
    assert 1 / 3 <= aspects[0] < 0.4
    assert 2.5 < aspects[-1] <= 3
    # The first embedded checkpoint's world: a part of this one.
    light = [scenes.light_scene(seed) for seed in range(100)]
    assert {scene.aspect for scene in light} == {1.0}
    assert {scene.background.lightness for scene in light} == {"light"}
    assert {thing.colour for scene in light for thing in scene.objects} == set(scenes.LIGHT_COLOURS)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_differs_from_its_background(seed):
    """Against the background's own pixels, noise apart: none is as near as `LEAST_CONTRAST`, but for rounding."""
    scene = scenes.scene(seed)
    background = drawing.draw(scenes.Scene(replace(scene.background, noise=0.0), (), (), scene.aspect), 112)
    colours = np.asarray(background).reshape(-1, 3).astype(float)
    for thing in scene.objects + scene.texts:
        assert np.linalg.norm(colours - thing.paint, axis=1).min() > scenes.LEAST_CONTRAST - 3


def test_circles_are_round_in_the_picture_and_not_in_what_the_model_sees():
    circle = scenes.Object("circle", "red", "large", 0.5, 0.5, 0.2, paint=(255, 0, 0))
    scene = scenes.Scene(scenes.Background(((0, 0, 0),) * 2), (circle,), aspect=2.0)
    red_YX = np.asarray(drawing.draw(scene, 200))[..., 0] > 128
    assert red_YX.shape == (141, 283)
    assert abs(int(red_YX.any(axis=0).sum()) - int(red_YX.any(axis=1).sum())) <= 2  # pixels, rounded
    shown_YX = drawing.cover(scene, 200) == 1
    assert shown_YX.any(axis=1).sum() == pytest.approx(2 * shown_YX.any(axis=0).sum(), abs=3)


@pytest.mark.parametrize("seed", SEEDS)
def test_objects_are_seen_and_named_one_by_one(seed):
    """No two alike, none cut off by the border, none hidden by more than a quarter, left to right without doubt."""
    scene = scenes.scene(seed)
    assert len({thing.name for thing in scene.objects}) == len(scene.objects)
    assert all(right.x - left.x >= scenes.LEAST_STEP for left, right in itertools.pairwise(scene.objects))
    together = drawing.cover(scene, 448)
    for i, thing in enumerate(scene.objects):
        alone = drawing.cover(replace(scene, objects=(thing,), texts=()), 448)
        assert (together == i + 1).sum() > 0.75 * alone.sum()
        assert not alone[[0, -1]].any()
        assert not alone[:, [0, -1]].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_and_masks_are_where_the_picture_shows_the_objects(seed):
    """Against the picture itself: a pixel shows an object where it differs from the picture without it."""
    scene, side = scenes.scene(seed), 224
    with_all = np.asarray(drawing.draw(scene, side)).astype(int)
    height, width, _ = with_all.shape
    for i, (box, mask) in enumerate(drawing.shown(scene)):
        without = replace(scene, objects=scene.objects[:i] + scene.objects[i + 1 :])
        seen = np.abs(with_all - np.asarray(drawing.draw(without, side))).max(axis=-1) > 30
        top, left, bottom, right = (edge * length for edge, length in zip(box, (height, width) * 2))
        found = place_mask(2 * mask - 1, (left, top, right, bottom), (width, height))
        # Where it covers another object of a like colour it does not differ much.
        assert (found & seen).sum() > 0.8 * seen.sum()
        assert overlap((left, top, right, bottom), _pixel_box(found)) > 0.88  # a pixel more or less; lowest seen 0.9


def _pixel_box(shown):
    top, left, bottom, right = drawing.box_of(shown)
    return left * shown.shape[1], top * shown.shape[0], right * shown.shape[1], bottom * shown.shape[0]


def test_text_is_where_its_box_is_and_touches_nothing():
    texts = 0
    for seed in range(60):
        scene = scenes.scene(seed)
        if scene.texts:
            texts += 1
            plain = replace(scene, objects=())
            letters = drawing.cover(plain, 448, letters=True) == drawing.TEXT
            box = drawing.text_box(scene.texts[0], scene.aspect)
            # At its sides the box has room for the gaps before the first letter and after the last: up to 0.041 seen.
            np.testing.assert_allclose(drawing.box_of(letters), box, atol=0.05)
            assert min(box) > 0
            assert max(box) < 1
            edges = drawing.letter_edges(scene.texts[0], scene.aspect)
            assert len(edges) == len(scene.texts[0].text) + 1
            alone = drawing.cover(replace(scene, texts=()), 448) > 0
            assert not (alone & (drawing.cover(plain, 448) == drawing.TEXT)).any()
    assert texts > 10


def test_a_page_is_full_of_text():
    for seed in SEEDS:
        page = scenes.page(seed)
        assert len(page.texts) >= 2
        boxes = [drawing.text_box(text, page.aspect) for text in page.texts]
        assert all(above[2] <= below[0] for above, below in itertools.pairwise(boxes))


def test_pages_are_as_wide_or_as_high_as_asked():
    widths = [scenes.page(seed, aspects=(0, 1)).aspect for seed in SEEDS]
    assert min(widths) == 1
    assert 2 < max(widths) <= scenes.MOST_ASPECT
    both = [scenes.page(seed, aspects=(-1, 1)).aspect for seed in SEEDS]
    assert 1 / scenes.MOST_ASPECT <= min(both) < 1 / 2
    assert 2 < max(both) <= scenes.MOST_ASPECT
    assert 1 in both, "pages of the light world are square"


def test_training_can_have_texts_more_often():
    with_text = [sum(bool(scenes.scene(seed, part).texts) for seed in SEEDS) for part in (0, scenes.TEXT_PART, 1)]
    cluttered = sum(scenes.scene(seed).background.kind == "clutter" for seed in SEEDS)
    assert with_text[0] == 0
    assert with_text[1] < with_text[2] == len(SEEDS) - cluttered


# Prompts


def test_prompts_have_one_right_answer():
    for seed in SEEDS:
        asked = held_out_examples(scenes.scene(seed))
        assert len({example.prompt for example in asked}) == len(asked)
        assert {example.task for example in asked} <= set(prompts.TASKS)


def things(*described):
    """Objects from left to right: (colour, shape, size, y)."""
    return tuple(
        scenes.Object(shape, colour, size, 0.2 + 0.25 * i, y, 0.1)
        for i, (colour, shape, size, y) in enumerate(described)
    )


def test_captions_go_from_left_to_right_in_both_languages():
    one, two, three = things(
        ("red", "star", "small", 0.5), ("blue", "square", "large", 0.5), ("orange", "cross", "small", 0.5)
    )
    assert prompts.caption([]) == "no shapes"
    assert prompts.german_caption([]) == "keine Formen"
    assert prompts.caption([one]) == "a small red star"
    assert prompts.caption([one, two]) == "a small red star and a large blue square"
    assert prompts.caption([one, two, three]) == "a small red star, a large blue square and a small orange cross"
    german = "ein kleiner roter Stern, ein großes blaues Quadrat und ein kleines orangefarbenes Kreuz"
    assert prompts.german_caption([one, two, three]) == german


def test_questions_are_answered_from_the_scene():
    """Every answer of many scenes, checked by its own reading of the scene."""
    checked = set()
    for seed in range(300):
        scene = scenes.scene(seed)
        named = {thing.name: thing for thing in scene.objects}
        for example in held_out_examples(scene):
            words = example.prompt.removeprefix("answer en ").split()
            if example.task == "count":
                noun = {"objects": None, **{f"{s}es" if s == "cross" else f"{s}s": s for s in scenes.SHAPES}}[words[-1]]
                expected = str(sum(noun in (None, thing.shape) for thing in scene.objects))
            elif example.task == "color":
                pool = [t for t in (*scene.objects, *scene.texts) if words[-1] in (getattr(t, "shape", "text"))]
                assert len(pool) == 1
                expected = pool[0].colour
            elif example.task == "shape":
                [expected] = [thing.shape for thing in scene.objects if thing.colour == words[-1]]
            elif example.task == "position":
                one, other = named[" ".join(words[2:4])], named[" ".join(words[-2:])]
                across = {"left": one.x < other.x, "right": one.x > other.x}
                down = {"above": one.y < other.y, "below": one.y > other.y}
                [expected] = [word for word, holds in (across if "left" in words else down).items() if holds]
            elif example.task == "yes or no" and words[1] == "there":
                expected = "yes" if " ".join(words[3:]) in named else "no"
            elif example.task == "yes or no":
                one, other = named[" ".join(words[2:4])], named[" ".join(words[-2:])]
                holds = {"left": one.x < other.x, "right": one.x > other.x}
                holds |= {"above": one.y < other.y, "below": one.y > other.y}
                expected = "yes" if holds[words[4]] else "no"
            else:
                continue
            checked.add((example.task, expected))
            assert example.answer == expected, (seed, example)
    assert {("yes or no", "yes"), ("yes or no", "no"), ("count", "0"), ("count", "4")} <= checked
    assert {("position", word) for word in ("left", "right", "above", "below")} <= checked


def test_boxes_are_written_as_paligemma_writes_them():
    assert prompts.location_text((0, 0.1, 0.5, 1)) == "<loc0000><loc0102><loc0512><loc1023>"


def test_what_is_not_there_is_not_detected():
    absent = [e for seed in range(200) for e in held_out_examples(scenes.scene(seed)) if "detect" in e.task]
    assert any(example.answer == "" for example in absent)
    assert any(example.answer.count("<loc") == 8 for example in absent)
    for example in absent:
        asked = example.prompt.removeprefix("detect ").split(" ; ")
        labels = [part.split("> ")[1] for part in example.answer.split(" ; ") if part]
        assert set(labels) <= set(asked)


# Scoring


def scored(task, prompt, right, found, scene=None):
    tallies = {name: Tally() for name in (*TASKS, "detect, nothing there", "ocr, nothing there")}
    score(tallies, scene, prompts.Example(task, prompt, right), found, codebook_of(FOLDER))
    return next((name, tally) for name, tally in tallies.items() if tally.asked)


BOX, NEAR, FAR = (
    prompts.location_text(box) for box in ((0.1,) * 2 + (0.5,) * 2, (0.12, 0.1, 0.5, 0.5), (0.6,) * 2 + (0.9,) * 2)
)


@pytest.mark.parametrize(
    ("found", "right", "extra"),
    [
        (f"{NEAR} red star", 1, 0),
        (f"{NEAR} red cross", 0, 1),
        (f"{FAR} red star", 0, 1),
        (f"{NEAR} red star ; {FAR} red star", 1, 1),
        (f"{NEAR} red star ; {NEAR} red star", 1, 1),
        ("red star", 0, 0),
        ("", 0, 0),
    ],
)
def test_boxes_are_compared_by_overlap_and_name(found, right, extra):
    name, tally = scored("detect", "detect red star", f"{BOX} red star", found)
    assert (name, tally.right, tally.asked, tally.extra) == ("detect", right, 1, extra)
    assert tally.overlaps == ([pytest.approx(0.95, abs=0.01)] if right else [])


def test_two_boxes_are_two_answers():
    right = f"{BOX} red star ; {FAR} red star"
    assert scored("detect two", "", right, f"{FAR} red star ; {BOX} red star")[1].right == 2
    assert scored("detect two", "", right, f"{FAR} red star")[1].right == 1


def test_nothing_is_the_right_answer_where_nothing_is():
    for found, right in (("", 1), (f"{BOX} red star", 0)):
        name, tally = scored("detect", "detect red star", "", found)
        assert (name, tally.right) == ("detect, nothing there", right)
    assert scored("ocr", "ocr", "", "")[0] == "ocr, nothing there"


def test_captions_may_name_objects_in_any_order():
    right = "a small red star, a large blue cross and a small red cross"
    assert scored("caption", "caption en", right, "a small red cross, a small red star and a large blue cross")[1].right
    assert not scored("caption", "caption en", right, "a small red star and a large blue cross")[1].right
    german = "ein kleiner roter Stern und ein großes blaues Kreuz"
    assert scored("caption in German", "", german, "ein großes blaues Kreuz und ein kleiner roter Stern")[1].right


def test_masks_are_compared_with_the_picture():
    """A true box with codes that the torch encoder gives for the true mask scores nearly 1; no mask scores 0."""
    network = Codebook()
    with np.load(FOLDER / FILE) as file:
        network.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
    scene = scenes.scene(5)
    shown = drawing.shown(scene)
    codes = network.encode(torch.from_numpy(np.stack([mask for _, mask in shown]))).tolist()
    for thing, (box, _), code in zip(scene.objects, shown, codes):
        text = f"{prompts.location_text(box)}{''.join(f'<seg{c:03}>' for c in code)} {thing.name}"
        _, tally = scored("segment", f"segment {thing.name}", text, text, scene)
        assert tally.overlaps[0] > 0.85
        _, tally = scored("segment", f"segment {thing.name}", text, f"{prompts.location_text(box)} {thing.name}", scene)
        assert (tally.overlaps, tally.right) == ([0.0], 0)


# Training


@pytest.fixture(scope="module")
def short():
    """A training of a few steps; whatever it sets for the process is set back."""
    from tiny.training import start, train

    state = torch.get_rng_state()
    with pytest.MonkeyPatch.context() as context:
        # Few scenes hold every word as well.
        context.setattr(start, "CORPUS_SCENES", 60)
        phases = [replace(phase, steps=2 if phase.again else 4, pictures=2, rate=1e-3) for phase in train.PHASES]
        context.setattr(train, "PHASES", tuple(phases))
        for name in ("VALIDATION_SCENES", "VALIDATE_EVERY", "SAVE_EVERY", "REPORT_EVERY"):
            context.setattr(train, name, 2)
        yield train
    torch.set_rng_state(state)


@pytest.fixture(scope="module")
def whole(short, tmp_path_factory):
    """The folder of a training that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    short.train(folder)
    return folder


@pytest.mark.slow
def test_a_checkpoint_can_be_made(tmp_path, short, whole):
    folder = tmp_path / "made"
    shutil.copytree(whole, folder)
    evaluation = evaluate(folder, count=2)
    write_card(folder, evaluation)
    made = {path.name for path in folder.iterdir()} - {"training.png"}
    assert made == {*FILES, "training.json", "training_log.jsonl", "evaluation.json", "README.md"}
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert table(evaluation) in text
    assert overlap_table(evaluation) in text
    assert all(np.isfinite(array).all() for *_, array in leaves(npgemma.load(folder).params))
    # The same sizes as the embedded one, so that one command makes it again.
    assert npgemma.load(folder).config == npgemma.load().config
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    # Once in the middle of the first round, and at the end of each.
    rounds = sum(phase.kind == "model" for phase in short.PHASES)
    assert [entry["phase"] for entry in log].count("validation") == 1 + rounds
    assert {phase.name for phase in short.PHASES} < {entry["phase"] for entry in log}


class Stopped(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["tower", "codebook", "model"])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, short, whole, monkeypatch, phase):
    """Stopped after each phase's first save; the weights are the same to the last bit."""
    save = short.Run.save

    def save_and_stop(run, name, reached):
        save(run, name, reached)
        if name == phase:
            raise Stopped

    with monkeypatch.context() as context:
        context.setattr(short.Run, "save", save_and_stop)
        with pytest.raises(Stopped):
            short.train(tmp_path)
    torch.manual_seed(99)
    short.train(tmp_path)
    for name in (*FILES, "training_log.jsonl"):
        assert (whole / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert not (tmp_path / "training_state.pt").exists()


def test_the_plot_shows_the_log(tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'npgemma[figures]'")
    from tiny.training.plot import plot

    with open(tmp_path / "plot.png", "wb") as file:
        plot(FOLDER / "training_log.jsonl", file)
    assert np.asarray(Image.open(tmp_path / "plot.png").convert("L")).std() > 10


# The command


@pytest.mark.parametrize("command", ["train", "evaluate", "gallery"])
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


def test_the_targets_stand_in_the_table(stated):
    shown = table(stated) + overlap_table(stated)
    assert all(f"{target:.2f}" in shown for target in OVERLAPS.values())


@pytest.mark.parametrize("shown", ["clutter", "a page of text", "objects without text"])
def test_a_batch_that_lacks_something_has_a_finite_loss(shown):
    from tiny.training import tower
    from tiny.training.codebook import Codebook
    from tiny.training.start import initial_params

    made = {
        "clutter": lambda seed: replace(scenes.scene(seed), objects=(), texts=()),
        "a page of text": scenes.page,
        "objects without text": lambda seed: scenes.scene(seed, text_part=0),
    }
    config = npgemma.load().config
    batch = tower.batch([made[shown](seed) for seed in (1, 2)], config.vision, Codebook().eval())
    batch = {name: torch.as_tensor(array) for name, array in batch.items()}
    loss, right = tower.Lesson(config.vision).loss(batch, initial_params(config, 0).vision, 1.0)
    assert loss.isfinite()
    assert all(value.isfinite() for value in right.values())


def test_the_card_names_the_targets_that_are_missed(stated):
    reached = {task: numbers | {"right": numbers["asked"]} for task, numbers in stated["tasks"].items()}
    reached |= {task: reached[task] | {"overlap": 1.0} for task in OVERLAPS}
    assert missed({"tasks": reached}) == "All targets are reached."
    position = {"right": 1, "asked": 8}
    one = {"tasks": reached | {"position": position, "segment": reached["segment"] | {"overlap": 0.5}}}
    assert missed(one) == "Below target: position (12.5%, target 98%), mean overlap in segment (0.500, target 0.83)."
    assert missed(stated) in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_training_does_not_change_what_it_starts_from():
    """What a phase has reached is saved again with each later one: it must stay what it was."""
    from tiny.training.start import initial_params
    from tiny.training.train import Weights

    params = initial_params(npgemma.load().config, 0)
    before = [array.clone() for *_, array in leaves(params)]
    with torch.no_grad():
        for array in Weights(params).parameters():
            array.add_(1)
    assert all(torch.equal(array, old) for (*_, array), old in zip(leaves(params), before))
