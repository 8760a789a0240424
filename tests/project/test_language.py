"""One word for one thing: words that were retired do not come back in docstrings, comments, errors or documents."""

import re

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
