"""All that is generated is what ``python reports/readme.py`` writes, and an edit of a docstring changes none of it."""

import re

import numpy as np
import pytest
from generated import ROOT, documents, exercises, figures
from PIL import Image

OUTDATED = "run: python reports/readme.py"


# For the page of exercises the model is broken a dozen times.
LONG = {exercises.DOCUMENT: pytest.mark.slow}


@pytest.mark.parametrize("document", [pytest.param(name, marks=LONG.get(name, ())) for name in documents.DOCUMENTS])
def test_documents_are_up_to_date(document):
    made, kept = documents.regenerate(document), (ROOT / document).read_text(encoding="utf-8")
    if document == exercises.DOCUMENT:
        # The broken model of an exercise may choose another location where two are equally probable.
        made, kept = (re.sub(r"\d+", "0", text) for text in (made, kept))
    assert made == kept, OUTDATED


@pytest.mark.parametrize("path", figures.FIGURES)
def test_figures_are_up_to_date(path):
    """But for how fonts and rounding may differ between machines."""
    drawn = np.asarray(figures.FIGURES[path]().convert("RGB")).astype(int)
    with Image.open(ROOT / path) as kept:
        apart = np.abs(drawn - np.asarray(kept.convert("RGB"))).max(axis=-1)
    assert (apart > 16).mean() < 0.01, OUTDATED


@pytest.mark.parametrize("path", figures.DRAWINGS)
def test_drawings_are_up_to_date(path):
    """But for the values of thumbnails, which machines round differently."""
    made, kept = (re.sub(r"base64,[^\"]*", "", text) for text in (figures.DRAWINGS[path](), (ROOT / path).read_text()))
    assert made == kept, OUTDATED


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_no_document_has_the_number_of_a_line(document):
    assert not re.search(r"\.py(#L|:)\d", (ROOT / document).read_text(encoding="utf-8"))


def test_every_figure_is_small_drawn_by_the_program_and_shown():
    files = {f"docs/figures/{path.name}": path.stat().st_size for path in (ROOT / "docs/figures").iterdir()}
    # Its program needs a browser.
    assert files.pop("docs/figures/page.png") < 100_000
    assert set(files) == {*figures.FIGURES, *figures.DRAWINGS}
    assert sum(files.values()) < 100_000
    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    assert all(path.removeprefix("docs/") in text for path in files)
