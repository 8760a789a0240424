"""stages.py: how often a stage is timed, and which of its times count."""

import pytest

from npgemma.benchmarks.stages import timed


@pytest.mark.parametrize(
    ("takes", "repeats", "counted"),
    [([20], 3, [20]), ([1, 4, 2, 3], 3, [4, 2, 3]), ([5], 0, [5]), ([10], 1, [10]), ([9, 11], 1, [11])],
)
def test_a_short_stage_is_done_again(takes, repeats, counted):
    now, left = [0.0], iter(takes)

    def stage():
        now[0] += next(left)
        return "found"

    found, result = timed(stage, lambda: now[0], repeats, longest=10)
    assert ([seconds for seconds, _ in found], result) == (counted, "found")
    assert all(0 <= busy < 1 for _, busy in found)
    assert next(left, None) is None
