"""logits.py: a mistake is named only where nothing else explains the logits; what they cannot show is said."""

import dataclasses
import json

import numpy as np
import pytest

import npgemma
from npgemma.command import main
from npgemma.errors import InputError
from npgemma.image import load_image
from npgemma.porting import narrow
from npgemma.porting.exact import exact
from npgemma.porting.logits import Answer, Comparison, decision, diagnose, distances, read_answer
from npgemma.porting.logits.decision import mistakes_of_tokens
from npgemma.porting.logits.question import Question
from npgemma.porting.mistakes import MISTAKES
from npgemma.probe.exchange import exchanged

PROMPT = "a small red circle"


class Kept(Question):
    """A question that runs each mistake once, however many answers are diagnosed."""

    def logits(self, changes=None, rows=None):
        kept = self.__dict__.setdefault("kept", {})
        key = frozenset((changes or {}).items()), rows
        if key not in kept:
            kept[key] = super().logits(changes, rows)
        return kept[key]


@pytest.fixture(scope="module")
def question(gemma_2_folder, image):
    """Five tokens that a random PaliGemma 2 answers with."""
    model = npgemma.load(gemma_2_folder)
    tokens = model.generate(image, PROMPT, max_new_tokens=5).token_ids
    assert len(tokens) == 5
    return Kept(model, lambda: load_image(image, model.config.vision.image_size), PROMPT, tokens)


def answer(question, *ids, noise=0.0):
    """A port's logits, with mistakes and with rounding."""
    changes = {name: wrong for id in ids for name, wrong in MISTAKES[id].variants[0].items()}
    logits = question.logits(changes)[:, : question.model.tokenizer.size].astype(np.float64)
    random = np.random.default_rng(0).standard_normal(logits.shape)
    logits += noise * random * np.linalg.norm(logits) / np.linalg.norm(random)
    return Answer(logits, question.token_ids)


def named(report):
    assert (report["verdict"] == "mistake") == bool(report["mistakes"])
    return [found["name"] for found in report["mistakes"]]


@pytest.mark.parametrize(
    ("dtype", "verdict"), [("float32", "right"), ("bfloat16", "rounding"), ("float16", "rounding")]
)
def test_rounding_is_no_mistake_and_hides_none_and_a_narrow_one_proves_nothing(question, dtype, verdict):
    noise = Comparison(answer(question), question, dtype).limit / 2
    assert diagnose(answer(question, noise=noise), question, dtype)["verdict"] == verdict
    report = diagnose(answer(question, "image-scaled", noise=noise), question, dtype)
    assert named(report) == ["image-scaled"]
    [found] = report["mistakes"]
    assert found["explained_error"] < 2 * noise < found["own_error"]
    assert abs(found["c"] - 1) < 0.1


FALSELY_RIGHT = ("no-projector-bias", "no-patch-bias", "no-vision-biases", "vision-quick-gelu", "pixels-divided-by-128")


@pytest.mark.parametrize("id", FALSELY_RIGHT)
def test_small_mistakes_of_narrow_ports_are_not_called_right(question, id):
    wrong = exact(question.model, "bfloat16")
    port = Question(wrong, question.load, question.prompt, question.token_ids)
    [logits, *_] = narrow.runs(lambda: port.logits(MISTAKES[id].variants[0]), "bfloat16")
    report = diagnose(Answer(narrow.rounded(logits, "bfloat16"), question.token_ids), question)
    assert report["dtype"] == "bfloat16"
    assert report["verdict"] in ("rounding", "mistake")
    assert set(named(report)) <= {id}
    # A port that says float32 is not told to say bfloat16 and be right.
    report = diagnose(answer(question, id), question, "float32")
    assert named(report) == [id]


def test_a_dtype_is_offered_only_where_none_is_stated(question):
    noisy = answer(question, noise=Comparison(answer(question), question, "bfloat16").limit / 2)
    assert "bfloat16" in diagnose(noisy, question)["says"]
    assert "--dtype" not in diagnose(noisy, question, "float32")["says"]


@pytest.mark.parametrize("id", ["no-bos", "position-skipped", "no-final-softcap", "resize-nearest"])
def test_mistakes_of_every_part_are_named(question, id):
    assert named(diagnose(answer(question, id), question, "float32")) == [id]


def test_two_mistakes_at_once_get_no_name_but_what_each_explains(question):
    report = diagnose(answer(question, "silu", "pixels-bgr"), question, "float32")
    assert (report["verdict"], named(report)) == ("undecided", [])
    assert "first row" in report["says"]
    assert "pixels-bgr" in [each["name"] for each in report["nearest"]]
    assert all(0.5 <= each["explains"] <= 1 for each in report["nearest"])


def test_a_mistake_that_explains_nearly_all_is_named_beside_another_one(question):
    report = diagnose(answer(question, "image-scaled", "vision-exact-gelu"), question, "float32")
    assert named(report) == ["image-scaled"]
    assert "another beside it" in report["says"]


def test_rounding_of_logits_that_a_mistake_makes_larger_is_no_second_mistake(question, monkeypatch):
    larger = {"gemma2.unembed": lambda module, right: lambda *given: 30 * right(*given)}
    mistake = dataclasses.replace(MISTAKES["head-scaled"], variants=(larger,))
    monkeypatch.setattr(decision, "MISTAKES", {**MISTAKES, "head-scaled": mistake})
    right = answer(question, noise=2e-6)
    report = diagnose(Answer(30 * right.logits, right.token_ids), question)
    assert (named(report), report["says"]) == (["head-scaled"], None)


def test_what_is_wrong_in_later_rows_only_is_said_to_be(question):
    wrong = answer(question)
    wrong.logits[2:] *= 2
    assert "rows before row 2 are right" in diagnose(wrong, question, "float32")["says"]


def test_rows_behind_those_on_which_mistakes_are_tried_are_judged_too(question, monkeypatch):
    for module in (decision, distances):
        monkeypatch.setattr(module, "LOGITS_ROWS", 3)
    wrong = answer(question)
    assert diagnose(wrong, question, "float32")["verdict"] == "right"
    wrong.logits[4] = wrong.logits[4, ::-1]
    report = diagnose(wrong, question, "float32")
    assert report["verdict"] == "undecided"
    assert "rows before row 4 are right" in report["says"]


def test_rows_that_are_right_in_another_way_are_told(question):
    right = answer(question)
    added = Answer(right.logits + np.arange(1, 6)[:, None], right.token_ids)
    assert "added to a whole row" in diagnose(added, question, "float32")["says"]
    late = Answer(np.roll(right.logits, -1, axis=0), right.token_ids)
    assert "one too early" in diagnose(late, question, "float32")["says"]


def test_a_token_that_is_not_the_most_probable_one_is_said(question):
    model, right = question.model, answer(question)
    assert decision.unlikely_tokens(right, model) == []
    least = Answer(right.logits, [*right.token_ids[:3], int(right.logits[3].argmin()), 5])
    assert decision.unlikely_tokens(least, model)[0] == 3
    end = Answer(right.logits, [*right.token_ids[:3], model.config.eos_tokens[0], 5])
    assert decision.unlikely_tokens(end, model) == [3]


def test_one_row_shows_no_mistake_of_a_step(question):
    one = dataclasses.replace(question, token_ids=question.token_ids[:1])
    report = diagnose(answer(one), one, "float32")
    reasons = {each["name"]: each["reason"] for each in report["undecidable"]}
    assert "more rows" in reasons["position-skipped"]
    assert "padding" in reasons["padding-visible"]
    assert "image-scaled" not in reasons


def test_mistakes_that_do_the_same_are_told_together(question, monkeypatch):
    twin = {**MISTAKES, "twin": MISTAKES["image-scaled"]}
    twin["twin"] = type(twin["twin"])(**{**vars(twin["twin"]), "id": "twin"})
    monkeypatch.setattr(decision, "MISTAKES", twin)
    report = diagnose(answer(question, "image-scaled"), question, "float32")
    assert (report["verdict"], report["mistakes"]) == ("undecided", [])
    assert report["says"].endswith("image-scaled, twin")


def test_tokens_show_mistakes_too(question):
    model = question.model
    end, size = model.config.eos_tokens[0], model.tokenizer.size
    assert mistakes_of_tokens([5, end], model) == []
    assert mistakes_of_tokens([5, end, model.config.pad_token], model) == []
    assert mistakes_of_tokens([5, end, 6], model) == ["eos-ignored"]
    assert mistakes_of_tokens([size], model) == ["padded-vocabulary-wins"]


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_rows_that_pad_the_vocabulary_are_passed_over(question, tmp_path):
    right = answer(question)
    for more in (0, 7):
        wide = np.pad(right.logits, ((0, 0), (0, more)), constant_values=-np.inf)
        path = write(tmp_path / "x.npz", logits=wide.astype(np.float32), token_ids=np.array(right.token_ids))
        assert diagnose(read_answer(path, question.model), question, "float32")["verdict"] == "right"


@pytest.mark.parametrize("ids", [[], ["gate-up-swapped"]])
def test_a_softmax_in_place_of_logits_is_judged_as_logits(question, tmp_path, ids):
    logits = answer(question, *ids).logits
    softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    for stored, array in (("softmax", softmax), ("log-softmax", np.log(softmax))):
        path = write(tmp_path / f"{stored}.npz", logits=array, token_ids=np.array(question.token_ids))
        report = diagnose(read_answer(path, question.model), question, "float32")
        assert (report["stored_as"], named(report)) == (stored, ids)
        assert report["verdict"] == ("mistake" if ids else "right")


def test_bad_files_are_refused_with_a_sentence(question, tmp_path):
    right, path = answer(question), tmp_path / "x.npz"
    rows = question.model.config.text.vocabulary
    good = {"logits": right.logits, "token_ids": np.array(right.token_ids)}
    broken = right.logits.copy()
    broken[3, 0] = np.nan
    cases = [
        ({"logits": right.logits}, "token_ids"),
        (good | {"logits": broken}, "row 3"),
        (good | {"logits": right.logits[None]}, r"\(n, V\)"),
        (good | {"logits": right.logits[:, :9]}, "found 9"),
        (good | {"token_ids": np.array(right.token_ids[1:])}, "5 whole numbers"),
        (good | {"token_ids": np.array([10**6] * 5)}, "1000000"),
        (good | {"token_ids": np.array([rows] * 5)}, f"between 0 and {rows - 1}, found {rows}"),
        (good | {"token_ids": np.array([-1] * 5)}, "found -1 to -1"),
    ]
    for arrays, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            read_answer(write(path, **arrays), question.model)
    last = write(path, **good | {"token_ids": np.array([0, rows - 1] * 2 + [0])})
    assert read_answer(last, question.model).token_ids[1] == rows - 1
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="complete"):
        read_answer(path, question.model)


def test_the_command(question, image, gemma_2_folder, tmp_path, capsys):
    wrong = answer(question, "gate-up-swapped")
    path = write(tmp_path / "x.npz", logits=wrong.logits, token_ids=np.array(wrong.token_ids))
    options = ["--image", str(image), "--prompt", PROMPT, "--checkpoint", str(gemma_2_folder)]
    command = ["diagnose", "--logits", str(path), *options]
    assert main([*command, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert named(report) == ["gate-up-swapped"]
    assert set(report["mistakes"][0]) == {"name", "place", "own_error", "explained_error", "c", "z"}
    assert main(command) == 1
    out = capsys.readouterr().out
    assert out.startswith("mistake: ")
    assert MISTAKES["gate-up-swapped"].says in out
    assert main(["something else" if word == PROMPT else word for word in command]) == 1
    assert "image or prompt may be others" in capsys.readouterr().out
    right = write(tmp_path / "right.npz", logits=answer(question).logits, token_ids=np.array(question.token_ids))
    assert main(["diagnose", "--logits", str(right), *options]) == 0
    assert capsys.readouterr().out.startswith("right: ")
    with pytest.raises(SystemExit):
        main([*command, "--dtype", "int8"])


def test_changes_are_gone_afterwards(question):
    question = Question(question.model, question.load, question.prompt, question.token_ids)
    right = question.logits()
    with exchanged(MISTAKES["silu"].variants[0]):
        assert not np.array_equal(question.logits(), right)
    assert np.array_equal(question.logits(), right)
