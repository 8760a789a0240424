"""What must hold for any checkpoint: the embedded one by default, a real one with ``pytest --checkpoint DIR``."""

import pytest

import npgemma
from npgemma.porting.parity import CHECKS, Parity


@pytest.fixture(scope="module")
def parity(checkpoint):
    return Parity(checkpoint)


@pytest.mark.parametrize("check", CHECKS)
def test_checkpoint(parity, checkpoint, check):
    outcome, reason = parity.run(check)
    if outcome == "skipped":
        pytest.skip(reason)
    assert outcome == "passed", reason
    # The bounds were measured on it: there not even bfloat16 is past them.
    if checkpoint == npgemma.embedded_checkpoint():
        assert not [each for each in parity.measurements if each.get("first_past_bound")]
