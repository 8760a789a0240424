"""``explain``: what it refuses, and what its parts compute."""

import pathlib

from PIL import Image
from tour_page import facts_of

import npgemma
from npgemma.command import main
from npgemma.explain import bundle


def refused(capsys, *arguments):
    """Run a command line that is refused; return the sentence."""
    assert main(["explain", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_what_cannot_be_shown_is_refused(capsys, tmp_path):
    image = tmp_path / "image.png"
    Image.new("RGB", (30, 20)).save(image)
    out = tmp_path / "page.html"
    assert "one image" in refused(capsys, "--out", out, "--image", image, image)
    assert "--images-per-prompt" in refused(capsys, "--out", out, "--image", image, image, "--images-per-prompt", 2)
    assert "cannot write" in refused(capsys, "--out", tmp_path / "no folder" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]


def test_the_page_is_small_and_checked(page):
    assert page.stat().st_size < 5e6
    facts = facts_of(page)
    assert facts["parity"]["passed"]
    assert facts["parity"]["arrays"] == len(facts["arrays"]["names"])
    assert {mistake["id"] for mistake in facts["mistakes"]} >= {"no-vision-positions", "causal-prefix", "image-scaled"}
    names = {function["name"] for function in facts["functions"]}
    assert names >= {"patchify", "attend", "prefix_lm", "geglu", "sample", "find_objects"}


def test_lines_that_are_not_marked_are_the_same_on_both_sides(page):
    marked = 0
    for function in facts_of(page)["functions"]:
        sides = [function["reference"], function["twin"]] if function["twin"] else []
        same = [[line for i, line in enumerate(side["lines"]) if i not in side["changed"]] for side in sides]
        assert not same or same[0] == same[1]
        marked += sum(len(side["changed"]) for side in sides)
    assert marked > 20


def test_texts_in_the_page_are_escaped():
    assert '{"prompt":"a\\\\u202e\\\\u001b\\n"}' in bundle.bundle({"prompt": "a\u202e\x1b\n"}, "", "")


def test_the_modules_become_one_script():
    script = bundle.script()
    assert "import {" not in script
    assert "export " not in script.replace("// ", "")
    for path in pathlib.Path(bundle.WEB).glob("*.js"):
        assert path.name == bundle.FIRST or f'modules["{path.name}"]' in script


def test_in_bfloat16_the_twin_takes_the_same_tokens(tmp_path):
    """The backends may choose other tokens there, and arrays of other tokens cannot be compared."""
    out = tmp_path / "page.html"
    image = ["--image", str(npgemma.embedded_checkpoint() / "gallery" / "wide.png")]
    asked = ["--prompt", "detect yellow star ; white circle", "--max-new-tokens", "6"]
    assert main(["explain", "--backend", "torch", "--dtype", "bfloat16", "--out", str(out), *image, *asked]) == 0
    report = facts_of(out)["parity"]
    assert all(place["relative_l2"] < 0.2 for place in report["places"])
    assert not report["missing"]
    assert not report["unexpected"]
    assert facts_of(out)["learning"]["dtype"] == "float32"
