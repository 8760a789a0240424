"""docs/exercises.md: each change is short and shows something."""

import re

import pytest
from generated import exercises
from support import ROOT

CHANGES = [exercise for exercise in exercises.EXERCISES if "change" in exercise]


@pytest.mark.parametrize("exercise", CHANGES, ids=lambda exercise: exercise["file"])
def test_changes_are_short_and_fit(exercise):
    lines = (ROOT / "npgemma" / exercise["file"]).read_text().splitlines()
    assert len(exercise["change"]) <= 3
    assert all(lines.count(old) == 1 and "\n" not in new for old, new in exercise["change"])


@pytest.mark.slow
def test_a_change_shows_what_is_claimed():
    for exercise, runs in zip(exercises.EXERCISES, exercises.run_all()):
        assert all(before for before, _ in runs), exercise["file"]
        if "change" in exercise:
            assert [before == after for before, after in runs] == exercise["same"], exercise["file"]
            assert False in exercise["same"], exercise["file"]


def test_answers_are_folded():
    """Before it is unfolded, a page has the question, the change and the command, and nothing that is printed."""
    shown = re.sub(r"<details>.*?</details>", "", (ROOT / exercises.DOCUMENT).read_text(), flags=re.S)
    assert not re.search(r"^(before|after):|^\$ ", shown, re.M)
    for exercise in exercises.EXERCISES:
        assert exercise["why"].strip() not in shown
        assert exercise["ask"].strip() in shown
