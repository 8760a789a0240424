"""docs/exercises.md: each change is short and shows something; what is printed is what the page says."""

import re

import exercises
import pytest
from readme import PATH
from support import ROOT

CHANGES = [exercise for exercise in exercises.EXERCISES if "change" in exercise]


@pytest.fixture(scope="module")
def outputs():
    return exercises.run_all(exercises.EXERCISES)


def test_every_file_of_the_path_has_an_exercise():
    assert [exercise["file"] for exercise in exercises.EXERCISES] == [name for name, _ in PATH]


@pytest.mark.parametrize("exercise", CHANGES, ids=lambda exercise: exercise["file"])
def test_changes_are_short_and_fit(exercise):
    lines = (ROOT / "npgemma" / exercise["file"]).read_text().splitlines()
    assert len(exercise["change"]) <= 3
    assert all(lines.count(old) == 1 and "\n" not in new for old, new in exercise["change"])


@pytest.mark.slow
def test_a_change_shows_what_is_claimed(outputs):
    for exercise, runs in zip(exercises.EXERCISES, outputs):
        assert all(before for before, _ in runs), exercise["file"]
        if "change" in exercise:
            assert [before == after for before, after in runs] == exercise["same"], exercise["file"]
            assert False in exercise["same"], exercise["file"]


@pytest.mark.slow
def test_the_page_is_up_to_date(outputs):
    """But for digits: a broken model may choose another location where two are equally probable."""
    expected, found = exercises.document(outputs), (ROOT / exercises.DOCUMENT).read_text()
    assert re.sub(r"\d+", "0", expected) == re.sub(r"\d+", "0", found), "run: python reports/exercises.py"


def test_answers_are_folded():
    """Before it is unfolded, a page has the question, the change and the command, and nothing that is printed."""
    shown = re.sub(r"<details>.*?</details>", "", (ROOT / exercises.DOCUMENT).read_text(), flags=re.S)
    assert not re.search(r"^(before|after):|^\$ ", shown, re.M)
    for exercise in exercises.EXERCISES:
        assert exercise["why"].strip() not in shown
        assert exercise["ask"].strip() in shown
