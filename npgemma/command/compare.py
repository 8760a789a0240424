"""``python cli.py compare``: find the first wrong operation of another program, from the arrays that it wrote."""

import contextlib
import json
import math
import os

import numpy as np

from npgemma.command import BAD_INPUT, PAST_BOUND, prepare
from npgemma.command.arguments import add_question
from npgemma.command.port_tables import compare_table, inputs_table, map_table
from npgemma.errors import InputError
from npgemma.files.reading import naming
from npgemma.files.writing import replacing

SUMMARY = "Find the first wrong operation of another program (a port) from its arrays; exit with 1 if it is wrong."
DTYPES = ("float32", "bfloat16", "float16", "float64")
# Its answer has boxes: under many mistakes an answer to "caption en" begins alike.
PROMPT = "detect red circle ; blue square"


def add_arguments(parser):
    """Declare the command's arguments."""
    parser.add_argument("port", metavar="PORT", help="the port's arrays: .safetensors, .npz, or a folder of .npy files")
    parser.add_argument("--map", metavar="MAP", help="its names and layouts: a TOML file, or a built-in map's name")
    parser.add_argument("--check-map", action="store_true", help="list what the map finds and misses; no verdict")
    parser.add_argument("--write-map", metavar="FILE", help="list the same, and write the map that it suggests")
    parser.add_argument(
        "--inputs", metavar="DIR", help="compare only pixels and token ids, with a folder that conformance wrote"
    )
    parser.add_argument(
        "--resized-as", choices=("hugging_face", "big_vision"), default="hugging_face",
        help="with --inputs: the program whose resizing filter the port uses (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--reference", metavar="TRACE", help="from npgemma trace (default: made now, with its tokens)")
    parser.add_argument(
        "--graft", metavar="NAME", action="append", default=[],
        help="put the port's array in place of the reference's of this name: is what follows right then? Repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="the port's (default: bfloat16 or float16 if that holds all its numbers, else float32)",
    )
    add_question(parser, prompt=None, described=f"the trace's own, if it has one; else {PROMPT}")


def run(options):
    """Print coverage, the first wrong operation and the verdict."""
    from npgemma.porting.arrays import read_arrays
    from npgemma.porting.comparing import TOKENS, compare
    from npgemma.porting.name_map import read_map
    from npgemma.porting.narrow import dtype_of

    rules = read_map(options.map) if options.map is not None else []
    if options.inputs is not None:
        return _check_inputs(options, read_arrays(options.port))
    port = read_port(options)
    options.dtype = options.dtype or dtype_of(array for name, array in port.items() if name != TOKENS)
    reference, vocabulary = reference_of(options, port.get(TOKENS))
    if options.check_map or options.write_map:
        return _check_map(options, reference, {name: array for name, array in port.items() if name != TOKENS}, rules)
    with naming(options.port):
        report = {"port": options.port} | compare(reference, port, rules, options.dtype, vocabulary, options.graft)
    print(json.dumps(finite(report)) if options.json else compare_table(report), flush=True)
    return 0 if report["passed"] else PAST_BOUND


def read_port(options):
    """Return a port's arrays, ``token_ids`` among them where it gives any; note the prompt that its trace gives."""
    from npgemma.files.reading import parse_json
    from npgemma.porting.arrays import AGAIN, read_arrays, read_manifest, read_metadata
    from npgemma.porting.comparing import TOKENS

    port = read_arrays(options.port)
    about = read_manifest(options.port, {"prompt": (None, str)}) or {}
    options.prompt = options.prompt or about.get("prompt") or PROMPT
    told = read_metadata(options.port).get(TOKENS)  # where npgemma trace writes them
    if TOKENS not in port and told is not None:
        port[TOKENS] = np.array(parse_json(told, [int], f"{TOKENS} in '{options.port}'", AGAIN), np.int64)
    return port


def finite(report):
    """Return a report that JSON can hold, with null where a number is infinite, as the distance of unequal ids is."""
    if isinstance(report, dict):
        return {key: finite(value) for key, value in report.items()}
    if isinstance(report, list):
        return [finite(value) for value in report]
    return None if isinstance(report, float) and not math.isfinite(report) else report


def _check_inputs(options, port):
    from npgemma.porting.input_set import check_inputs

    report = check_inputs(options.inputs, port, options.resized_as)
    print(json.dumps(report) if options.json else inputs_table(report), flush=True)
    return 0 if report["passed"] else PAST_BOUND


def _check_map(options, reference, port, rules):
    from npgemma.porting.same_question import same_question
    from npgemma.porting.suggestions import as_toml, suggest

    reference, coverage, _ = same_question(reference, port, rules)
    report = {
        "counts": coverage.counts(),
        "suggestions": suggest(reference, coverage),
        "mapped": {name: coverage.pairs[name].port for name in coverage.found},
        "misfits": coverage.misfits,
        "idle": coverage.idle,
        "known": coverage.known,
        "unseen": coverage.unseen,
        "unknown": list(coverage.unknown),
    }
    if options.write_map:
        extends = options.map and (os.path.abspath(options.map) if os.path.isfile(options.map) else options.map)
        if os.path.lexists(options.write_map):
            raise InputError(f"'{options.write_map}' is there already: name a new file")
        with replacing(options.write_map) as file:
            file.write(as_toml(report["suggestions"], extends).encode())
    print(json.dumps(finite(report)) if options.json else map_table(report), flush=True)
    return 0 if coverage.pairs or options.write_map else BAD_INPUT


def reference_of(options, token_ids):
    """Return what to compare with, and how many rows of the vocabulary belong to tokens (None if unknown)."""
    from npgemma.porting.given_tokens import prompt_ids, row_of
    from npgemma.porting.reference import from_model, from_trace, with_model

    if options.reference is not None:
        load, path = lambda dtype: prepare.reference(options, dtype), options.reference
        return with_model(from_trace(path), load, path), None
    _, image = prepare.image(options)
    # NumPy loads no float16: such a port's weights are rounded from float32.
    model = prepare.reference(options, "float32" if options.dtype == "float16" else options.dtype)
    prompt = prompt_ids(model, options.prompt)
    with naming(options.port) if token_ids is not None else contextlib.nullcontext():
        ids = None if token_ids is None else row_of(token_ids, "the port's token_ids")
        return from_model(model, image, prompt, ids), model.tokenizer.size
