"""docs/figures/ is what ``python reports/figures.py`` draws, and is small."""

import figures
import numpy as np
import pytest
from PIL import Image
from support import ROOT


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figures_are_up_to_date(name):
    """But for how fonts and rounding may differ between machines."""
    drawn = np.asarray(figures.FIGURES[name]().convert("RGB")).astype(int)
    with Image.open(ROOT / figures.FOLDER / name) as kept:
        apart = np.abs(drawn - np.asarray(kept.convert("RGB"))).max(axis=-1)
    assert (apart > 16).mean() < 0.01, "run: python reports/figures.py"


def test_every_figure_is_small_and_drawn_by_the_program():
    files = {path.name: path.stat().st_size for path in (ROOT / figures.FOLDER).iterdir()}
    assert set(files) == set(figures.FIGURES)
    assert sum(files.values()) < 100_000


def test_every_figure_is_shown():
    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    assert all(f"figures/{name}" in text for name in figures.FIGURES)
