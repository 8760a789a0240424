"""The own errors of right programs: ``python reports/budgets.py [--checkpoint DIR] [--out FILE]``.

Three right programs, Hugging Face's transformers, the twin and the NumPy backend, answer one question about one image;
each of their operations is calculated again in float64, from their own arrays. The largest own error of each kind of
operation, in each dtype, goes to ``reports/budgets.json``, beside the checkpoint's hash and the versions that made it.
`npgemma.porting.bounds.LARGEST_OWN_ERROR` has to agree, which tests/porting/test_bounds.py checks; docs/metrics.md has
the table.

At full size the float64 copy of a checkpoint is what takes memory (24 GB for 3 billion parameters). Own errors
do not add up over the layers, so a model of the full width with few layers serves: ``--layers N`` keeps the first N
blocks of each tower of ``DIR``, which `python -m conversion synthesize` can have written.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import pathlib
import platform
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import npgemma  # noqa: E402
from npgemma.command.compare import PROMPT  # noqa: E402
from npgemma.image import load_image  # noqa: E402
from npgemma.porting import given_tokens  # noqa: E402
from npgemma.porting.backends import twin_of  # noqa: E402
from npgemma.porting.bounds import LARGEST_OWN_ERROR, kind_of  # noqa: E402
from npgemma.porting.coverage import cover  # noqa: E402
from npgemma.porting.diagnosis import Port, Replays  # noqa: E402
from npgemma.porting.exact import exact  # noqa: E402
from npgemma.porting.name_map import read_map  # noqa: E402
from npgemma.porting.own_errors import recalculated  # noqa: E402
from npgemma.porting.reference import from_model  # noqa: E402
from npgemma.probe.manifest import checkpoint_hash  # noqa: E402

RESULTS = ROOT / "reports" / "budgets.json"
TOKENS = [7, 8]
# Hugging Face does not show the scaled queries and scores: these count with what was hidden before them.
TOGETHER = ("attention weights", "rotation")
LIBRARIES = ("numpy", "torch", "transformers")


def shortened(model, layers):
    """Return a model with the first blocks of each tower."""
    if layers is None:
        return model
    params, config = model.params, model.config
    for tower in ("vision", "text"):
        part, sizes = getattr(params, tower), getattr(config, tower)
        params = dataclasses.replace(params, **{tower: dataclasses.replace(part, blocks=part.blocks[:layers])})
        config = dataclasses.replace(config, **{tower: dataclasses.replace(sizes, layers=layers)})
    return dataclasses.replace(model, params=params, config=config)


def measure(folder, dtype, layers=None):
    """Return by right program and kind of operation the largest own error on a checkpoint."""
    model = shortened(npgemma.load(folder, dtype="float32" if dtype == "float16" else dtype), layers)
    image = load_image(npgemma.example_image(), model.config.vision.image_size)
    prompt = model.tokenizer.prompt(PROMPT)
    reference, found = exact(model, dtype), {}
    if dtype != "float16":  # neither backend of ours has it
        programs = {"NumPy": model, "twin": twin_of(model)}
        if dtype == "float64":
            del programs["NumPy"]  # the reference itself
        for name, program in programs.items():
            found[name] = own_errors(reference, image, prompt, _ours(program, image, prompt), TOKENS, dtype)
    # In float64 Hugging Face's norms, rotations and softmax calculate in float32 all the same.
    if importlib.util.find_spec("transformers") and layers is None and dtype != "float64":
        arrays, tokens = _hugging_face(folder, dtype, model, image, prompt)
        found["Hugging Face"] = own_errors(reference, image, prompt, arrays, tokens, dtype)
    return found


def _ours(model, image, prompt):
    with npgemma.record() as arrays:
        given_tokens.run(model, given_tokens.pixels_of(image), prompt, TOKENS)
    return arrays


def _hugging_face(folder, dtype, model, image, prompt):
    """Return Hugging Face's arrays under our names, and the tokens that it chose."""
    import dump_transformers as example

    port, inputs = example.load(folder, dtype), example.inputs_of(folder, npgemma.example_image(), PROMPT, dtype)
    arrays = {
        name: (array.float() if array.dtype.itemsize == 2 else array).numpy()
        for name, array in example.run(port, inputs, len(TOKENS)).items()
    }
    tokens = arrays.pop("token_ids").tolist()
    pairs = cover(from_model(model, image, prompt, tokens), arrays, read_map("transformers")).pairs
    return {name: pair.found for name, pair in pairs.items() if pair.found is not None}, tokens


def own_errors(model, image, prompt, arrays, tokens, dtype):
    """Return the largest own error of each kind of operation."""
    arrays = {name: array for name, array in arrays.items() if not name.endswith("masked_BKGTS")}
    replays = Replays(model, lambda: given_tokens.pixels_of(image), prompt, Port(arrays, tokens, dtype))
    largest = dict.fromkeys(LARGEST_OWN_ERROR[dtype], 0.0)
    for _, entry, place in recalculated(replays):
        kind = kind_of(entry)
        alone = kind in TOGETHER or all(source in replays.graph.shown for source in entry.inputs)
        if alone and math.isfinite(place.error):
            largest[kind] = max(largest[kind], place.error)
    return {kind: float(f"{error:.2g}") for kind, error in largest.items() if error}


def main():
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", metavar="DIR", default=str(npgemma.embedded_checkpoint()))
    parser.add_argument("--layers", type=int, metavar="N", help="keep the first N blocks of each tower")
    dtypes = tuple(LARGEST_OWN_ERROR)
    parser.add_argument("--dtype", choices=dtypes, action="append", help="once or more (default: all)")
    parser.add_argument("--out", metavar="FILE", default=str(RESULTS))
    options = parser.parse_args()
    model = shortened(npgemma.load(options.checkpoint), options.layers)
    report = {
        "checkpoint": checkpoint_hash(model.params),
        "layers": options.layers,
        "versions": {name: _version(name) for name in LIBRARIES} | {"machine": platform.machine()},
        "measured": {},
    }
    del model
    for dtype in options.dtype or LARGEST_OWN_ERROR:
        report["measured"][dtype] = measure(options.checkpoint, dtype, options.layers)
    pathlib.Path(options.out).write_text(json.dumps(report, indent=1) + "\n")


def _version(name):
    return importlib.metadata.version(name) if importlib.util.find_spec(name) else None


if __name__ == "__main__":
    main()
