"""The list of all that is generated: blocks of documents, and whole pages; `figures` has the pictures."""

import json
import re

from generated import ROOT, concepts, exercises, metrics, mistakes, overview, porting, reading_path, speed, supported
from tiny.training import card, gallery

BLOCKS = {
    "README.md": {
        "first output": reading_path.first_output,
        "gallery": lambda: gallery.table(ROOT / "tiny"),
        "path": reading_path.path_table,
    },
    "docs/overview.md": {
        "one answer": overview.one_answer,
        "shapes": overview.shapes_table,
        "blocks": lambda: overview.ablations_table("tower", "decoder"),
        "mask": lambda: overview.ablations_table("mask"),
    },
    "docs/concepts.md": {"concepts": concepts.concepts_table},
    "docs/porting.md": {"walk": porting.walk_output, "bounds": porting.bounds_table},
    "docs/metrics.md": {"budgets": metrics.budgets_table, "diagnosis": metrics.diagnosis_table},
    "docs/mistakes.md": {"mistakes": mistakes.table},
    "docs/robustness.md": {"limits": supported.limits_table, "attacks": supported.attacks_table},
    "docs/supported.md": {"supported": supported.supported_table},
    "docs/speed.md": {
        "speed": lambda: speed.each_device(speed.speed_table, "bench"),
        "against": speed.against_tables,
        "full size": speed.full_size_tables,
    },
}
PAGES = {
    "docs/exercises.md": exercises.page,
    "tiny/README.md": lambda: card.card(ROOT / "tiny", json.loads((ROOT / "tiny" / card.EVALUATION).read_text())),
}
DOCUMENTS = [*BLOCKS, *PAGES]


def regenerate(document):
    """Return a document with all that is generated in it made anew."""
    if document in PAGES:
        return PAGES[document]()
    text = (ROOT / document).read_text()
    for name, make in BLOCKS[document].items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        assert re.search(pattern, text, re.S), f"{document} has no block '{name}'"
        text = re.sub(pattern, lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", text, flags=re.S)
    return text


def write_all():
    """Write every document."""
    for document in DOCUMENTS:
        (ROOT / document).write_text(regenerate(document), encoding="utf-8")
