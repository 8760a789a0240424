"""Asks every witness about every known mistake: ``python reports/mistakes.py`` writes docs/mistakes.md.

``python reports/mistakes.py measure`` measures first (``reports/mistakes.json``): about fifteen minutes on one core.
``tests/porting/test_witnesses.py`` measures a sample again, and all of it with ``-m slow``.
"""

import json
import pathlib
import sys
import tempfile

from tests_under_mistakes import fails
from witnesses import NUMPY, ROOT, TWIN, Checkpoint, in_arrays, in_goldens, shared

from npgemma.porting.logits.question import AROUND, touches
from npgemma.porting.mistakes import MISTAKES

DTYPES = ("float64", "float32", "bfloat16")
EMBEDDED, RANDOM, RANDOM_2 = "embedded", "random PaliGemma 1", "random PaliGemma 2"
CHECKPOINTS = (EMBEDDED, RANDOM, RANDOM_2)
RESULTS = ROOT / "reports" / "mistakes.json"
# The ways of these are other values of the same number: the first stands for all.
ONE_WAY = ("rope-theta", "prefix-chunked")
# Mistakes in what the goldens do not pass through, or that are too small for them: the tests that fail.
_RESIZED = "tests/test_golden.py::test_pixels_are_those_of_hugging_faces_image_processor"
TESTS = {
    "resize-bilinear": _RESIZED,
    "resize-nearest": _RESIZED,
    "resize-no-antialias": _RESIZED,
    "vision-epsilon": "tests/test_siglip.py::test_block_is_a_pre_norm_transformer_layer",
    "rms-epsilon": "tests/test_gemma2.py::test_block",
    "no-newline": "tests/test_tokenizer.py::test_prompt_layout",
    "no-bos": "tests/test_tokenizer.py::test_prompt_layout",
    "double-bos": "tests/test_tokenizer.py::test_empty_prompt",
    "locations-1024": "tests/test_answer.py::test_the_order_is_top_left_bottom_right",
    "locations-x-first": "tests/test_model.py::test_objects_are_told_in_pixels_of_the_image",
    "padded-vocabulary-wins": "tests/test_model.py::test_rows_without_a_piece_are_never_chosen",
    "eos-ignored": "tests/test_model.py::test_every_answer_says_why_it_ended",
    "top-p-drops-crossing-token": "tests/test_model.py::test_the_token_that_reaches_top_p_is_drawn_and_no_further_one",
}


def named(id, way):
    """Return how a mistake and its way are called in the report."""
    return id if way == 0 else f"{id}, way {way + 1}"


def ways_of(id):
    """Return the numbers of a mistake's ways that are measured."""
    return range(1 if id in ONE_WAY else len(MISTAKES[id].ways))


def possible(id, gemma2):
    """Say whether a family can have a mistake."""
    return gemma2 or not MISTAKES[id].only_gemma2


def around(id):
    """Say whether a mistake is made in what stands around the forward pass, so that no array can show it."""
    return touches(MISTAKES[id].ways[0], AROUND)


def array_cases():
    """Yield (checkpoint, id, way, dtype, side) of all that is asked of arrays; first, with None, right programs."""
    for name in CHECKPOINTS:
        for dtype in DTYPES:
            yield from ((name, None, 0, dtype, side) for side in (NUMPY, TWIN))
        for number, id in enumerate(MISTAKES):
            if possible(id, name == RANDOM_2) and not around(id):
                for way in ways_of(id):
                    yield from ((name, id, way, dtype, side) for dtype in DTYPES for side in sides(id, dtype, number))


def sides(id, dtype, number):
    """Return the backends in which a mistake is made.

    What is made in a file that serves both cannot be made in one. In float64 the backends take turns: both are exact
    there, and ``tests/porting/test_mistakes.py`` makes every mistake in both.
    """
    if shared(id):
        return (TWIN,)
    return (NUMPY, TWIN) if dtype != "float64" else ((NUMPY, TWIN)[number % 2],)


def golden_cases():
    """Yield (id, way, side, whether of PaliGemma 2) of all that the goldens are asked."""
    for gemma2 in (False, True):
        yield from ((None, 0, side, gemma2) for side in (NUMPY, TWIN))
        for id in MISTAKES:
            if possible(id, gemma2) and not shared(id):
                yield from ((id, way, side, gemma2) for way in ways_of(id) for side in (NUMPY, TWIN))


def test_cases():
    """Yield (id, way, test) of all tests that are run under a mistake."""
    for id, test in TESTS.items():
        yield from ((id, way, test) for way in ways_of(id))


def checkpoints(folder):
    """Make the random checkpoints.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    dict of str to Checkpoint
    """
    from support import CONFIGS, GEMMA_2, write_random_folder

    import npgemma

    made = {EMBEDDED: Checkpoint(npgemma.embedded_checkpoint())}
    for name, config in ((RANDOM, CONFIGS["two key/value heads"]), (RANDOM_2, GEMMA_2)):
        (folder / name).mkdir()
        made[name] = Checkpoint(write_random_folder(folder / name, config))
    return made


def key(*words):
    """Return a case's key in the JSON document."""
    return " | ".join(str(word) for word in words)


def array_key(name, id, way, dtype, side):
    """Return the key of a case of arrays."""
    return key(name, named(id, way), dtype, side)


def golden_key(id, way, side, gemma2):
    """Return the key of a case of goldens."""
    return key("PaliGemma 2" if gemma2 else "PaliGemma 1", named(id, way), side)


def test_key(id, way, test):
    """Return the key of a test's case."""
    return key(named(id, way), test)


def measure():
    """Ask all witnesses and keep what they say."""
    with tempfile.TemporaryDirectory() as folder:
        made = checkpoints(pathlib.Path(folder))
        found = {"arrays": {}, "goldens": {}, "tests": {}}
        for case in golden_cases():
            found["goldens"][golden_key(*case)] = in_goldens(*case)
        for id, way, test in test_cases():
            found["tests"][test_key(id, way, test)] = fails(test, id, way)
        for case in array_cases():
            found["arrays"][array_key(*case)] = in_arrays(made[case[0]], *case[1:])
    write_results(found)


def write_results(found):
    """Write the results, one case a line."""
    parts = []
    for part, cases in found.items():
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in cases.items()]
        parts.append(f'"{part}": {{\n' + ",\n".join(lines) + "\n}")
    RESULTS.write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        measure()
    import mistakes_page

    mistakes_page.write()
