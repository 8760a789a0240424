"""README.md: its generated parts are what the sources say, its commands work, its links lead somewhere."""

import re
import shlex
import subprocess
import sys

import pytest
from readme import BLOCKS, ROOT, regenerate

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", BLOCKS)
def test_generated_blocks_are_up_to_date(name):
    block = re.search(rf"<!-- generated: {name} -->\n(.*?)\n<!-- end -->", README, re.S)[1]
    assert block == BLOCKS[name](), "run: python reports/readme.py"


def test_generating_again_changes_nothing():
    assert regenerate(README) == README


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def shell_lines():
    """The cli.py commands of all shell blocks that need nothing but the project."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S)).replace("\\\n", " ")
    lines = [line.partition(" #")[0].strip() for line in blocks.splitlines()]
    return [line for line in lines if line.startswith("python cli.py") and "DIR" not in line]


@pytest.mark.parametrize("line", shell_lines())
def test_commands_work(line, tmp_path):
    command = [sys.executable, ROOT / "cli.py", *shlex.split(line)[2:]]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_python_examples_work(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # The examples read what the command above them writes.
    command = [sys.executable, ROOT / "cli.py", "trace", "--out", "trace.safetensors"]
    subprocess.run(command, check=True, capture_output=True)
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(compile(block, "README.md", "exec"), {})
