"""What must hold for any checkpoint: the embedded one by default, a real one with ``pytest --checkpoint DIR``."""

import pytest

from npgemma.porting.parity import CHECKS, Parity


@pytest.fixture(scope="module")
def parity(checkpoint):
    return Parity(checkpoint)


@pytest.mark.parametrize("check", CHECKS)
def test_checkpoint(parity, check):
    outcome, reason = parity.run(check)
    if outcome == "skipped":
        pytest.skip(reason)
    assert outcome == "passed", reason
