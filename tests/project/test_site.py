"""reports/site_of_docs.py: every page links to pages that are there; the site opens from a folder, search too."""

import re
import subprocess
import sys

import pytest
import site_of_docs
from browser import chromium  # noqa: F401
from support import ROOT


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    site_of_docs.gather(folder)
    return folder


def test_links_lead_to_pages_and_pictures_that_are_there(pages):
    links = 0
    for page in pages.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
        for target in re.findall(r'\]\(([^)#\s]+)|<img src="([^"]+)', text):
            target = "".join(target)
            if "://" not in target:
                links += 1
                assert (page.parent / target).is_file(), (page, target)
    assert links > 100


def test_every_chapter_has_its_pages_and_every_file_of_the_path_one(pages):
    index = (pages / "index.md").read_text()
    for chapter, names in site_of_docs.CHAPTERS.items():
        assert f":caption: {chapter}" in index
        for name in names:
            assert (pages / f"{name}.md").is_file(), name
            assert f"{name}.html" in site_of_docs.listed()
    assert "def rotate" in (pages / "npgemma/rope.py").read_text()


@pytest.mark.slow
def test_it_builds_without_a_warning_and_searches_without_a_host(tmp_path, chromium):  # noqa: F811
    pytest.importorskip("sphinx", reason="needs Sphinx: pip install -e '.[docs]'")
    subprocess.run([sys.executable, ROOT / "reports" / "site_of_docs.py", tmp_path / "site"], check=True)
    for name in ("index.html", "answer.html", "llms.txt", "reference/npgemma.html", "npgemma/gemma.py.html"):
        assert (tmp_path / "site" / name).stat().st_size > 1000
    chromium.get((tmp_path / "site" / "search.html").as_uri() + "?q=rotary")
    found = "return document.querySelector('#search-results').innerText"
    for _ in range(100):
        text = chromium.execute_script(found)
        if "rope.py" in text:
            break
    assert "rope.py" in text
