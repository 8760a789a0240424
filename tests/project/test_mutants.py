"""reports/mutants.py: no damaged file of a sample is a finding, and each kind of fault, planted in a reader, is one."""

import os
import time
import warnings

import mutants
import numpy as np
import pytest
import samples

from npgemma.errors import InputError


class Raw(InputError):
    """An error whose message is not escaped."""

    def __str__(self):
        return "\x1b[31m"


def refuse(problem):
    raise problem


FAULTS = {
    "KeyError at tests/project/test_mutants.py": lambda folder, file: refuse(KeyError("x")),
    "MemoryError at": lambda folder, file: np.ones(10**12),
    "a message without the file's name at": lambda folder, file: refuse(InputError("it is damaged")),
    "a message with control characters at": lambda folder, file: refuse(Raw(file)),
    "a warning, ": lambda folder, file: warnings.warn(f"{file} overflows", stacklevel=1),
    "printed: 'a foreign word'": lambda folder, file: os.write(2, b"a foreign word"),
    "the process ended with -9": lambda folder, file: os.kill(os.getpid(), 9),
    "the process ended with -27: Current thread": lambda folder, file: sum(iter(int, 1)),
    "the process ended with 1: Timeout": lambda folder, file: time.sleep(60),
}


def test_damaged_files_are_read_or_refused_in_one_sentence(capfd):
    assert mutants.main(["--count", "700"]) == 0, capfd.readouterr().out


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_its_files_are_kept(fault, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(samples, "READERS", dict.fromkeys(samples.READERS, FAULTS[fault]))
    monkeypatch.setattr(mutants, "SECONDS", 0.2)
    assert mutants.main(["--count", "2", "--seed", "7", "--keep", str(tmp_path)]) == 2
    assert capfd.readouterr().out.count(fault) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"7-0", "7-1"}


def test_a_mutant_depends_on_its_seed_and_number_only(tmp_path):
    for home in (tmp_path / "a", tmp_path / "b"):
        samples.make(home)
    first, again = (
        [mutants.drawn(29, number, home)[2] for number in range(100)] for home in (tmp_path / "a", tmp_path / "b")
    )
    assert first == again
    assert len(set(first)) > 95
