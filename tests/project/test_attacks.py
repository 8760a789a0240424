"""reports/attacks.py: each kind of fault is a finding, also that of a reader without its gate; a right case is none."""

import contextlib
import pathlib
import resource
import sys
import time

import attacks
import hostile
import numpy as np
import pytest

from npgemma.files.reading import reading


def refuse(said):
    print(said, file=sys.stderr)
    return 2


FAULTS = {
    "": lambda: refuse("error: 'file' is none"),
    "Traceback (most recent call last)": lambda: 1 / 0,
    "time over": lambda: time.sleep(60),
    "memory over": lambda: np.ones(10**8).sum() * 0,
    "a control character": lambda: print("file \x1b[31m"),
    hostile.SECRET: lambda: print("file", hostile.SECRET),
    "no end": lambda: refuse(f"error: file {5000 * 'x'}"),
    "exit status 5": lambda: print("file") or 5,
    "a refusal that is not of the form error: ..., in one line": lambda: refuse("file"),
    "does not say file": lambda: refuse("error: it is none"),
    "leaves 'new'": lambda: pathlib.Path("new").touch() or refuse("error: file"),
    "no JSON": lambda: print("file NaN"),
    "JSON is not exact": lambda: print('{"image": "file"}'),
}


def test_each_fault_is_found(monkeypatch, capsys):
    cases = [
        hostile.Case(fault, [fault] + ["--json"] * ("JSON" in fault), {}, (0, 2), "file", exact="files")
        for fault in FAULTS
    ]
    monkeypatch.setattr(attacks, "KINDS", {"kind": lambda home: cases})
    monkeypatch.setattr(attacks, "called", lambda words: FAULTS[words[0]]() or 0)
    monkeypatch.setattr(attacks, "SECONDS", 2)
    # A fork begins with what this process holds.
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    monkeypatch.setattr(attacks, "MEMORY", held + 4e8)
    assert attacks.main(["--only", "kind"]) == 1
    found = capsys.readouterr().out.splitlines()
    for fault in FAULTS:
        assert [line for line in found if line.startswith(f"kind: {fault}: {fault}" + " [" * (not fault))], fault


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_reader_without_its_gate_is_found(is_gone, monkeypatch, capsys):
    for module in [module for module in sys.modules.values() if getattr(module, "reading", None) is reading]:
        monkeypatch.setattr(module, "reading", lambda *told, **named: contextlib.nullcontext()) if is_gone else None
    assert attacks.main(["--only", "hub/vae-oid.npz 7"]) == is_gone, capsys.readouterr().out


def test_only_a_run_of_all_cases_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(attacks, "KINDS", {"kind": lambda home: [hostile.Case("", ["x"], {}, (0,))] * 2})
    monkeypatch.setattr(attacks, "called", lambda words: 0)
    monkeypatch.setattr(attacks, "REPORT", tmp_path / "attacks.json")
    for options, is_kept in ((["--seconds", "0"], False), ([], True)):
        assert (attacks.main(options), attacks.REPORT.exists()) == (0, is_kept)


def test_an_attack_may_write_in_its_own_folder_only(tmp_path):
    (tmp_path / "link").symlink_to("/")
    for path, may in (("out", True), ("../out", False), ("/dev/full", False), ("link/out", False), ("a\0b", True)):
        cases = (hostile.Case("", [*words, path]) for words in (["explain", "--out"], ["conversion", "hub"]))
        assert [attacks.stays(case, tmp_path) for case in cases] == [may, may]
