"""``python -m pytest --checkpoint DIR`` finds the tests, whatever DIR and from wherever it is called."""

import subprocess
import sys

import pytest
from support import ROOT

npgemma_pytest = pytest.importorskip("npgemma_pytest", reason="needs the project installed: pip install -e '.[test]'")
# Nearly every test here starts pytest again.
pytestmark = pytest.mark.slow
# Every test of the project would take minutes; this collects them.
COLLECT = ["--collect-only", "-q", "-p", "no:cacheprovider"]


@pytest.fixture(autouse=True)
def _installed(request):
    if not request.config.pluginmanager.has_plugin("npgemma"):
        pytest.skip("needs the project installed: pip install -e '.[test]'")


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


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--checkpoint", "{}"], "elsewhere"),
        (["--checkpoint", "{}"], "project"),
        (["--checkpoint={}"], "elsewhere"),
        (["--checkpoint={}"], "project"),
    ],
    ids=["two words, elsewhere", "two words, project", "one word, elsewhere", "one word, project"],
)
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


def test_nothing_is_loaded_before_the_configuration_is_right(elsewhere, tmp_path):
    """A conftest.py that imports what only the configuration puts on the path."""
    project = tmp_path / "project"
    files = {
        "pytest.ini": "[pytest]\npythonpath = lib\n",
        "lib/beside.py": "",
        "tests/conftest.py": "import beside\n",
        "tests/test_it.py": "def test_it(request):\n    assert request.config.getoption('--checkpoint') == '../cwd'\n",
    }
    for name, content in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)
    result = pytest_process("--checkpoint", "../cwd", cwd=project)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout


def test_a_folder_that_is_none_is_refused_at_once(elsewhere):
    _, cwd = elsewhere
    result = pytest_process(*COLLECT, "--checkpoint", "nowhere", ROOT / "tests/project", cwd=cwd)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "at 'nowhere' there is none" in result.stderr


def test_the_report_is_another_commands(elsewhere):
    result = pytest_process("--report", "x.json", ROOT / "tests/project", cwd=elsewhere[1])
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "python cli.py parity" in result.stderr


def test_the_command_of_the_readme(tmp_path):
    """As it is printed, but with one test chosen: it fails for a damaged tokenizer in DIR, so DIR is what is tested."""
    (tmp_path / "tokenizer.model").write_bytes(b"damaged")
    chosen = ["tests/test_tokenizer.py", "-k", "test_known_ids_of_the_published_tokenizer", "-p", "no:cacheprovider"]
    result = pytest_process("--checkpoint", tmp_path, *chosen, cwd=ROOT)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
    assert f"'{tmp_path}/tokenizer.model'" in result.stdout
    assert "1 failed" in result.stdout


def test_only_the_two_options_are_joined_with_their_values():
    given = ["tests", "--checkpoint", "DIR", "--report=FILE", "--maxfail", "3", "--report", "FILE"]
    joined = ["tests", "--checkpoint=DIR", "--report=FILE", "--maxfail", "3", "--report=FILE"]
    assert npgemma_pytest._in_one_word(given) == joined
    assert npgemma_pytest._in_one_word(joined) is None
    assert npgemma_pytest._in_one_word(["--checkpoint"]) is None
