"""One word for one thing, none on the path before it is explained; and each file of the path leads to the next."""

import re
import tokenize

from generated.exercises import EXERCISES
from support import ROOT

# Retired word: what is said now. Training code speaks of its drawn pictures and colours.
RETIRED = {
    r"\bpictures?\b": "image",
    r"\brotary.base\b": "rope_theta",
    r"\bmax_tokens\b": "max_new_tokens",
    r"\b(turn|turns|turned) (by|with|together|alike)\b": "rotate",
    r"\bthat cannot be\b(?! [a-z])": "invalid",
    r"\bno (terminal|picture|box at)\b": "not a terminal",
    r"\btold not to\b": "unless a flag prevents it",
    r"\b(attended|transformed|middle)_BTD\b": "attn_out_BTD, mlp_out_BTD, mid_BTD",
    r"\bread_BTNH\b": "mixed_BTNH",
    r"\bgemma\.decode\b|\bdecode\.0\b": "run_blocks",
    r"\bscores? (of|over|for) (the |every )?vocabulary\b": "logits",
    r"\bcolours?: red\b": "channels",
    r"\bthousand million\b": "billion",
    r"\bbends?\b": "nonlinearity",
    r"\bstay(s|ed)? turned\b": "stay transposed",
    r"\bare told in\b": "are given in",
}
FILES = [
    path
    for pattern in ("npgemma/**/*.py", "torch_ref/*.py", "conversion/*.py", "cli.py", "README.md", "docs/*.md")
    for path in sorted(ROOT.glob(pattern))
]


def test_retired_words_do_not_come_back():
    found = []
    for path in FILES:
        # What the gallery says of its images belongs to the training.
        text = re.sub(r"<!-- generated: gallery -->.*?<!-- end -->", "", path.read_text(), flags=re.S)
        found += [(path, match[0], now) for word, now in RETIRED.items() for match in re.finditer(word, text, re.I)]
    assert not found, "the last of each is what to say instead"


def test_the_words_are_looked_for():
    assert len(FILES) > 50
    assert all(re.search(word, text, re.I) for word, text in zip(RETIRED, ["a picture", "rotary base", "max_tokens"]))


PATH = [exercise["file"] for exercise in EXERCISES]
# By file of the path: terms that are explained there, in italics, where they come first.
EXPLAINED = {
    "axes.py": "batch, token, piece, channel, query, key, value, head, cache, forward pass, checkpoint",
    "config.py": "hub",
    "ops.py": "logit, stride",
    "backward/ops.py": "chain rule",
    "backward/optimizer.py": "learning rate",
}


def texts(file):
    """Return the docstrings, other strings and comments of a file of the path."""
    with open(ROOT / "npgemma" / file, "rb") as source:
        tokens = list(tokenize.tokenize(source.readline))
    return "\n".join(each.string for each in tokens if each.type in (tokenize.STRING, tokenize.COMMENT))


def test_each_file_of_the_path_leads_to_the_next():
    found = [re.findall(r"^\*Next:\* ``(.+?)``", texts(file), re.M) for file in PATH]
    assert found == [[file] for file in [*PATH[1:], "conversion/"]]


def test_terms_are_explained_where_they_come_first():
    read = [(file, re.sub(r"``.*?``", "", texts(file))) for file in PATH]
    for place, terms in EXPLAINED.items():
        for term in terms.split(", "):
            used = [(file, match[0]) for file, text in read for match in re.finditer(rf"\*?\b{term}s?\b", text, re.I)]
            assert used[0] in [(place, f"*{term}"), (place, f"*{term}s")], term
