"""README.md and docs/: their commands work, their links lead somewhere."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from generated import ROOT
from generated.concepts import concepts_table
from generated.porting import walk
from PIL import Image
from support import run_line

import npgemma
from conversion.folder import describe
from conversion.safetensors_file import read
from npgemma.command import COMMANDS, DEFAULT
from npgemma.command.arguments import parser_of
from npgemma.command.prepare import sampling
from npgemma.config import PUBLISHED

README = (ROOT / "README.md").read_text()


DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
# test_exercises.py runs the exercises.
ALL = "\n".join((ROOT / document).read_text() for document in DOCUMENTS if document != "docs/exercises.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", (ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), target


def test_the_readme_can_be_read_standing():
    assert len(README.splitlines()) <= 170


def test_the_glossary_is_short_and_in_order():
    rows = re.findall(r"^\| (?!word)(\w.*?) \|", (ROOT / "docs/glossary.md").read_text(), re.M)
    assert 30 <= len(rows) <= 40
    assert rows == sorted(rows, key=str.lower)


def test_most_concepts_have_numbers():
    """Each of the concepts has a place; those that numbers can show have an example, which test_doctests.py runs."""
    rows = concepts_table().splitlines()[2:]
    assert len(rows) >= 20
    assert sum(row.endswith(("| yes |", "| drawn |")) for row in rows) >= 12


def commands():
    """Every command of README and docs/: in shell blocks, on lines of their own, and in running text."""
    text = ALL.replace("\\\n", " ")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    lines += re.findall(r"^    (.*)$", text, re.M)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    lines = [part.strip() for line in lines for part in line.partition(" #")[0].split("&&")]
    return list(dict.fromkeys(line for line in lines if re.match(r"(python|pip|pytest|diff)\b ", line)))


# Commands that no test of this file runs: the test that does, or why none can.
TESTED_ELSEWHERE = {
    "python -m pytest": "this run is one",
    "python -m pytest --checkpoint DIR": "tests/project/test_checkpoint_option.py::test_the_command_of_the_readme",
    "python cli.py parity --checkpoint DIR --report FILE": "tests/porting/test_parity.py::test_the_report_of_a_run",
    "python -m pytest -m slow": ".ci/run does",
    "python -m pytest -m full_size": (
        "tests/project/test_checkpoint_option.py::test_the_configuration_holds_with_the_option"
    ),
    "python cli.py explain --out page.html": "tests/explain/test_explain.py::test_the_page_is_small_and_checked",
    "python -m conversion SRC DST": "tests/conversion/test_convert.py::test_all_of_a_checkpoint_goes_with_it",
    "python cli.py diagnose --logits FILE": "tests/porting/test_logits.py::test_the_command",
    "python cli.py compare PORT --map MAP": ("tests/command/test_compare_command.py::test_files_of_other_programs"),
    "python -m tiny.training evaluate": "tests/tiny/test_tiny.py::test_a_checkpoint_can_be_made",
    "python -m tiny.training train": "tests/tiny/test_tiny.py::test_a_checkpoint_can_be_made",
    "python reports/attacks.py --only TEXT": "tests/project/test_attacks.py",
    "python reports/readme.py bench DIR cuda": "needs a quiet machine with a CUDA device; writes into the project",
    "python reports/against_hugging_face.py DIR cuda": "needs transformers and a CUDA device; writes into the project",
}
WALK = "tests/project/test_porting.py::test_the_walk_runs_as_printed"
TESTED_ELSEWHERE |= {line: WALK for line in walk() if line.startswith("python")}
# .ci/run takes these from the README and runs them in an environment that is new; tests have none to install into.
INSTALLS = [
    "pip install torch --index-url https://download.pytorch.org/whl/cpu",
    "pip install --quiet -e .",
    "pip install --quiet -e '.[test]'",
    "pip install -e '.[oracle]'",
]
RUN = [line for line in commands() if line not in TESTED_ELSEWHERE and line not in INSTALLS]


def test_every_command_is_tested_or_said_not_to_be():
    handled = [line for line in RUN if line.startswith(("python cli.py", "python -m conversion", "diff"))]
    assert handled == RUN, "a command that no test knows how to run"
    assert len(RUN) > 10
    assert set(TESTED_ELSEWHERE) | set(INSTALLS) <= set(commands()), "a command that README no longer has"
    for test in filter(lambda where: "::" in where, TESTED_ELSEWHERE.values()):
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), test


def test_what_is_installed_exists():
    """The extras that the installing commands name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for line in INSTALLS for extra in re.findall(r"\[(\w+)\]", line)} <= set(extras)


@pytest.fixture
def elsewhere(tmp_path, random_folder, image):
    """A working directory outside the project, with the README's photo.jpg; DIR is a folder outside the project too."""
    Image.open(image).save(tmp_path / "photo.jpg")
    return tmp_path


def run(line, folder, cwd):
    """Run a command as it is printed, with DIR in its place; return its output."""
    result = run_line(re.sub(r"\bDIR\b", shlex.quote(str(folder)), line), cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("line", [line for line in RUN if line.startswith("python cli.py")])
def test_commands_work(line, elsewhere, random_folder, monkeypatch):
    """They print what the library answers, and write what they say."""
    rates = {"bytes_per_second": 1e10, "operations_per_second": 1e11}  # measured, they take a second
    monkeypatch.setattr("npgemma.benchmarks.speed.limits", lambda model: rates)
    folder = random_folder if "DIR" in shlex.split(line) else npgemma.embedded_checkpoint()
    out = run(line, random_folder, elsewhere)
    arguments = shlex.split(line)[2:]
    command = arguments.pop(0) if arguments and arguments[0] in COMMANDS else DEFAULT
    options = parser_of(importlib.import_module(f"npgemma.command.{command}")).parse_args(arguments)
    if command == "generate":
        image = elsewhere / options.image[0] if options.image else npgemma.example_image()
        answer = npgemma.load(folder).generate(image, options.prompt, **sampling(options))
        assert answer.token_ids
        if options.do_sample:
            assert answer.text != npgemma.load(folder).generate(image, options.prompt).text
        assert (json.loads(out)["text"] if options.json else out.removesuffix("\n")) == answer.text
        drawn = [path for path in (options.annotate, options.show_attention) if path]
        drawn += [f"{options.mask_dir}/*"] if options.mask_dir else []
        for pattern in drawn:
            [file] = elsewhere.glob(pattern)
            Image.open(file).load()
    elif command == "trace" and options.list:
        assert " prefill.0/logit_BV\n" in out
    elif command == "trace":
        names = [tensor.name for tensor in read(elsewhere / options.out)]
        assert any(name.startswith("logits.0/" if options.backward else "step.0/") for name in names)
    elif command == "diagnose":
        assert "\nrope-interleaved\n" in out
    elif command == "parity":
        assert f"{options.dtype}: " in out
        assert out.endswith("passed\n")
    elif command == "inspect":
        assert f"{describe(folder)['parameters']:,}" in out
    else:
        stages = json.loads(out)["stages"] if options.json else out
        assert {"vision tower", "prefill"} <= set(stages) if options.json else "token, batch 16" in out


@pytest.mark.parametrize(
    ("line", "most", "shown"),
    [
        ("diff npgemma/gemma.py torch_ref/gemma.py | grep '^>'", 12, "> from torch_ref.attention import attend"),
        (
            "diff npgemma/gemma.py npgemma/gemma2.py | grep '^>'",
            60,
            ">     mid_BTD = x_BTD + rms_norm(attn_out_BTD, p.attn_out_norm, config.epsilon)",
        ),
    ],
)
def test_the_diff_shows_the_lesson(line, most, shown):
    assert line in RUN
    changed = run(line, None, ROOT).splitlines()
    assert 0 < len(changed) < most
    assert shown in changed


SMALL = """
import dataclasses, runpy, sys
from npgemma.command import COMMANDS, DEFAULT
from npgemma.command.arguments import parser_of
from npgemma.command.prepare import sampling
from npgemma.config import PUBLISHED
for name, config in PUBLISHED.items():
    vision = dataclasses.replace(config.vision, width=16, mlp_width=16, layers=1, heads=2)
    text = dataclasses.replace(config.text, width=8, mlp_width=16, layers=1, head_width=4)
    PUBLISHED[name] = dataclasses.replace(config, vision=vision, text=text)
sys.argv = sys.argv[1:]
runpy.run_module("conversion", run_name="__main__")
"""


@pytest.mark.parametrize("line", [line for line in RUN if line.startswith("python -m conversion")])
def test_synthesizing_works_with_small_widths(line, tmp_path):
    """The command as printed, but with few channels and one layer; as it is, test_full_size.py runs it."""
    folder = tmp_path / "new folder"
    words = [str(folder) if word == "DIR" else word for word in shlex.split(line)]
    program = [sys.executable, "-c", SMALL, *words[words.index("conversion") :]]
    subprocess.run(program, check=True, capture_output=True, cwd=ROOT)
    model = npgemma.load(folder)
    assert model.config.text.vocabulary == PUBLISHED[words[4]].text.vocabulary
    assert len(model.generate(npgemma.example_image(), max_new_tokens=2).token_ids) > 0


def test_python_examples_work(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # The examples read what the command above them writes.
    assert run_line("python cli.py trace --out trace.safetensors", tmp_path).returncode == 0
    # Sessions with prompts are run by test_doctests.py.
    for block in re.findall(r"```python\n(?!>>>)(.*?)```", ALL, re.S):
        exec(compile(block, "README.md", "exec"), {})
