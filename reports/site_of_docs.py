"""Build the documentation as a site: ``python reports/site_of_docs.py OUT``, after ``pip install -e '.[docs]'``.

Its pages are README, docs/ and whatever these link to, as they stand, source files among them; the reference of the
public names; the page of `explain` about one answer; and ``llms.txt``, the list of pages for language models. It opens
from a folder as well as from a host.
"""

import importlib
import inspect
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "project"), str(ROOT / "reports")]

from generated.exercises import EXERCISES  # noqa: E402
from test_public_names import PUBLIC  # noqa: E402

from npgemma.command import main as npgemma  # noqa: E402
from tiny.training import gallery  # noqa: E402

LINK = re.compile(r"\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r'(?:<img src="|!\[[^\]]*\]\()([^")]+)')
LANGUAGES = {".py": "python", ".c": "c", ".h": "c", ".toml": "toml", ".json": "json"}
# In the order of the sidebar.
CHAPTERS = {
    "To run it": ["gallery", "docs/supported", "docs/robustness", "docs/speed", "tiny/index"],
    "To understand it": [
        "explained",
        "docs/overview",
        "docs/by_hand",
        "docs/concepts",
        "docs/exercises",
        "docs/glossary",
    ],
    "The path": [f"npgemma/{each['file']}" for each in EXERCISES],
    "To port it": ["docs/porting", "docs/metrics", "docs/mistakes"],
    "Reference": [f"reference/{module}" for module in PUBLIC],
    "To change it": ["docs/architecture", "CONTRIBUTING"],
}
EXPLAINED = """# One answer laid open

What the model saw, where it looked, what it chose among, and the code that did it, with the values that its arrays had,
as `python cli.py explain` writes it: <a href="answer.html">the page about `detect red circle ; blue square`</a>.
"""


def main(out):
    """Write the site to a new or empty folder."""
    out = pathlib.Path(out)
    if out.exists() and any(out.iterdir()):
        sys.exit(f"error: '{out}' should be a new or an empty folder")
    with tempfile.TemporaryDirectory() as folder:
        sources = pathlib.Path(folder)
        gather(sources)
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", ROOT / "docs" / "site"]
        subprocess.run([*command, sources, out], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    npgemma(["explain", "--out", str(out / "answer.html")])
    (out / "llms.txt").write_text(listed(), encoding="utf-8")


def gather(folder):
    """Write all pages as Markdown, each in its place in the project."""
    waiting, seen = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))], set()
    waiting += [f"npgemma/{each['file']}" for each in EXERCISES]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += page(name, folder)
    write(folder / "gallery.md", f"# Gallery\n\n{gallery.table(ROOT / 'tiny')}\n")
    write(folder / "explained.md", EXPLAINED)
    for module, names in PUBLIC.items():
        write(folder / "reference" / f"{module}.md", reference(module, names.split()))
    with open(folder / "index.md", "a", encoding="utf-8") as index:
        index.write("\n".join(map(contents, CHAPTERS)))


def page(name, folder):
    """Write the page of a file of the project; return the names of the files that it needs."""
    path = ROOT / name
    if path.suffix in LANGUAGES:
        write(folder / name, path.read_bytes())
        write(folder / f"{name}.md", source(name, LANGUAGES[path.suffix]))
        return []
    if path.suffix != ".md":
        write(folder / name, path.read_bytes())
        return []
    text = path.read_text(encoding="utf-8")
    write(folder / name.replace("README.md", "index.md"), LINK.sub(lambda link: linked(path, link), text))
    targets = [link[2] for link in LINK.finditer(text)] + PICTURE.findall(text)
    return [os.path.relpath(path.parent / target, ROOT) for target in targets if (path.parent / target).is_file()]


def source(name, language):
    """Return the page of a source file; the sidebar has those of the path."""
    alone = "" if name in CHAPTERS["The path"] else "orphan: true\n"
    shown = f"```{{literalinclude}} /{name}\n:language: {language}\n:linenos:\n```"
    return f"---\nhide-toc: true\n{alone}---\n\n# {name}\n\n{shown}\n"


def linked(path, link):
    """Return a link of a page as the site has it: to the page of a source file; to no folder."""
    target = path.parent / link[2]
    if not target.exists():
        return link[0]
    if target.is_dir():
        return link[1]
    name = f"{link[2]}.md" if target.suffix in LANGUAGES else link[2].replace("README.md", "index.md")
    return f"[{link[1]}]({name}{link[3] or ''})"


def reference(module, names):
    """Return the page of a module's public names."""
    lines = [f"# {module}", "", "```{eval-rst}", f".. currentmodule:: {module}", ""]
    for name in names:
        value = getattr(importlib.import_module(module), name)
        kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
        lines += [f".. auto{kind}:: {name}", "   :members:" * (kind == "class"), ""]
    return "\n".join([*lines, "```", ""])


def contents(chapter):
    """Return a chapter of the sidebar."""
    entries = [f"{name}.md" if name.endswith(".py") else name for name in CHAPTERS[chapter]]
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {chapter}", "", *entries, "```", ""])


def listed():
    """Return the list of pages, a line each, that language models are given."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = " ".join(readme.split("\n\n")[1].split())
    lines = ["# npgemma", "", f"> {LINK.sub(lambda link: link[1], first)}"]
    for chapter, names in CHAPTERS.items():
        lines += ["", f"## {chapter}", "", *(f"- [{name}]({name}.html)" for name in names)]
    return "\n".join([*lines, ""])


def write(path, content):
    """Write a text or bytes, and the folders above them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
