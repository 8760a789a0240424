"""``python -m pytest --checkpoint DIR`` finds the tests, whatever DIR and from wherever it is called."""

import os
import subprocess
import sys

import pytest
from support import ROOT

# Nearly every test here starts pytest again.
pytestmark = pytest.mark.slow
# Every test of the project would take minutes; this collects them.
COLLECT = ["--collect-only", "-q", "-p", "no:cacheprovider"]


@pytest.fixture(autouse=True)
def _entry_point(tmp_path_factory, monkeypatch):
    """Have the options' module loaded as it is where the project is installed."""
    folder = tmp_path_factory.mktemp("installed") / "npgemma-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: npgemma\nVersion: 0\n")
    (folder / "entry_points.txt").write_text("[pytest11]\nnpgemma = npgemma_pytest\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder.parent), str(ROOT)]))


def pytest_process(*arguments, cwd):
    command = [sys.executable, "-m", "pytest", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def collected(*arguments, cwd):
    """Return the ids of the tests that a command line finds, seen from the project."""
    result = pytest_process(*COLLECT, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return [line for line in result.stdout.splitlines() if "::" in line]


@pytest.fixture(scope="module")
def everything(request):
    """The ids of all tests, without the option: this run's own, if it was asked for no more than how much to print."""
    if all(argument.startswith(("-q", "-v", "--durations")) for argument in request.config.invocation_params.args):
        return [item.nodeid for item in request.session.items]
    return collected(cwd=ROOT)


@pytest.fixture
def elsewhere(tmp_path):
    """A folder outside the project, in one that has a configuration of pytest of its own, and a working directory."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = nothing\n")
    folder, cwd = tmp_path / "a checkpoint", tmp_path / "cwd"
    folder.mkdir()
    cwd.mkdir()
    (folder / "conftest.py").write_text("raise RuntimeError('a file of the checkpoint was taken for a test')\n")
    (folder / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    return folder, cwd


@pytest.mark.parametrize("where", ["elsewhere", "project"])
@pytest.mark.parametrize("words", [["--checkpoint", "{}"], ["--checkpoint={}"]], ids=["two words", "one word"])
def test_all_tests_are_found(everything, elsewhere, words, where):
    folder, cwd = elsewhere
    words = [word.format(folder) for word in words]
    found = collected(*words, cwd=ROOT) if where == "project" else collected(*words, ROOT / "tests", cwd=cwd)
    assert len(found) > 1000
    assert found == everything


def test_the_configuration_holds_with_the_option(everything, elsewhere):
    """Markers, and which tests have them, are known; a relative DIR counts from the working directory."""
    _, cwd = elsewhere
    found = collected("--checkpoint", "../a checkpoint", ROOT / "tests/project", "-m", "full_size", cwd=cwd)
    assert set(found) < set(everything)
    assert "tests/project/test_full_size.py::test_parity_at_the_published_size" in found


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--checkpoint", "nowhere"], "at 'nowhere' there is none"),
        (["--report", "x.json"], "python cli.py parity"),
    ],
)
def test_what_is_refused_at_once(elsewhere, words, says):
    result = pytest_process(*COLLECT, *words, ROOT / "tests/project", cwd=elsewhere[1])
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert says in result.stderr


def test_the_command_of_the_readme(tmp_path):
    """As it is printed, but with one test chosen: it fails for a damaged tokenizer in DIR, so DIR is what is tested."""
    (tmp_path / "tokenizer.model").write_bytes(b"damaged")
    chosen = ["tests/test_tokenizer.py", "-k", "test_known_ids_of_the_published_tokenizer", "-p", "no:cacheprovider"]
    result = pytest_process("--checkpoint", tmp_path, *chosen, cwd=ROOT)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
    assert f"'{tmp_path}/tokenizer.model'" in result.stdout
    assert "1 failed" in result.stdout


@pytest.mark.parametrize("words", [["--checkpoint", "given"], ["--checkpoint=given"]], ids=["two words", "one word"])
@pytest.mark.parametrize("where", ["there", "project"])
def test_in_another_project_nothing_is_declared(tmp_path, where, words):
    """Its conftest.py declares options of the same names, which it gets."""
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--checkpoint')\n    parser.addoption('--report')\n"
    )
    test = "def test(request):\n    assert request.config.getoption('--checkpoint') == 'given'\n"
    (tmp_path / "test_it.py").write_text(test)
    result = pytest_process(tmp_path / "test_it.py", *words, cwd=ROOT if where == "project" else tmp_path)
    assert "1 passed" in result.stdout, result.stdout + result.stderr
