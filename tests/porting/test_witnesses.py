"""docs/mistakes.md: what it says of known mistakes is measured again, a sample by default and all with ``-m slow``."""

import random

import mistakes
import mistakes_page
import pytest
import witnesses
from tests_under_mistakes import fails

# The sample is drawn with this number: another one is another sample. With 1 a test is drawn that takes five seconds.
SEED = 4
CHANGED = "run: python reports/mistakes.py measure"
RESULTS = mistakes_page.load()
ARRAYS, GOLDENS = list(mistakes.array_cases()), list(mistakes.golden_cases())
TESTS = list(mistakes.test_cases())
# Figures of at least so many bounds are a mistake's own, and the same everywhere; others are partly rounding, which
# differs between processors.
FAR = 10


def sample(cases, count, of=""):
    return random.Random(f"{SEED} {of}").sample(cases, count)


def of_checkpoint(name, count):
    return sample([case for case in ARRAYS if case[0] == name], count, name)


SAMPLE = [
    *of_checkpoint(mistakes.EMBEDDED, 1),
    *of_checkpoint(mistakes.RANDOM, 2),
    *of_checkpoint(mistakes.RANDOM_2, 2),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return mistakes.checkpoints(tmp_path_factory.mktemp("checkpoints"))


def near(expected, found, unit=1):
    """Whether two figures are the same but for rounding."""
    if expected is None or found is None:
        return expected is found
    most = 1.05 if min(expected, found) > FAR * unit else 3
    # Under a hundredth of a bound a figure is nothing but rounding.
    low, high = sorted([max(expected, unit / 100), max(found, unit / 100)])
    return high <= most * low


def caught(entry, id, dtype):
    return mistakes_page.seen(entry, id, dtype)[0] != mistakes_page.NOTHING


def same_arrays(checkpoints, case, logits):
    name, id, way, dtype, side = case
    expected = RESULTS["arrays"][mistakes.array_key(*case)]
    found = witnesses.in_arrays(checkpoints[name], id, way, dtype, side, logits=logits)
    return (
        caught(found, id, dtype) == caught(expected, id, dtype)
        and near(expected["end_to_end"], found["end_to_end"])
        and near(expected["own"], found["own"], unit=100)
        and (not logits or found["logits"] == expected["logits"])
    )


def same_goldens(case):
    return near(RESULTS["goldens"][mistakes.golden_key(*case)], witnesses.in_goldens(*case))


def fails_under_it_alone(case):
    id, way, test = case
    return RESULTS["tests"][mistakes.test_key(*case)] and fails(test, id, way) and not fails(test, None)


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: mistakes.array_key(*case))
def test_arrays_show_what_the_page_says(checkpoints, case):
    assert same_arrays(checkpoints, case, logits=False), CHANGED


@pytest.mark.parametrize("case", sample(GOLDENS, 3), ids=lambda case: mistakes.golden_key(*case))
def test_goldens_show_what_the_page_says(case):
    assert same_goldens(case), CHANGED


@pytest.mark.parametrize("case", sample(TESTS, 1), ids=lambda case: mistakes.test_key(*case))
def test_tests_fail_under_a_mistake(case):
    assert fails_under_it_alone(case)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", mistakes.DTYPES)
@pytest.mark.parametrize("name", mistakes.CHECKPOINTS)
def test_all_arrays_and_logits_show_what_the_page_says(checkpoints, name, dtype):
    cases = [case for case in ARRAYS if (case[0], case[3]) == (name, dtype)]
    assert [case for case in cases if not same_arrays(checkpoints, case, logits=True)] == [], CHANGED


@pytest.mark.slow
def test_all_goldens_show_what_the_page_says():
    assert [case for case in GOLDENS if not same_goldens(case)] == [], CHANGED


@pytest.mark.slow
def test_all_tests_fail_under_their_mistakes():
    assert [case for case in TESTS if not fails_under_it_alone(case)] == []


def test_the_results_are_of_all_cases():
    assert list(RESULTS["arrays"]) == [mistakes.array_key(*case) for case in ARRAYS]
    assert list(RESULTS["goldens"]) == [mistakes.golden_key(*case) for case in GOLDENS]
    assert list(RESULTS["tests"]) == [mistakes.test_key(*case) for case in TESTS]


def test_something_sees_every_mistake_that_port_and_twin_share():
    assert mistakes_page.uncaught(RESULTS) == []


def test_the_page_is_up_to_date():
    assert mistakes_page.document(RESULTS) == (mistakes.ROOT / mistakes_page.DOCUMENT).read_text()
