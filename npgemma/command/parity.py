"""``python cli.py parity``: run both backends on one input and print how far they are apart."""

import dataclasses
import json

import conversion
import npgemma
from npgemma.command import PAST_BOUND, prepare
from npgemma.command.arguments import add_backend, add_question, add_sampling
from npgemma.command.tables import parity_table
from npgemma.porting.backends import Comparison
from npgemma.porting.bounds import BOUNDS, DEVICE_FACTOR
from npgemma.porting.diagnosis import Port, Replays
from npgemma.porting.exact import exact
from npgemma.porting.given_tokens import pixels_of
from npgemma.porting.own_errors import own_errors

SUMMARY = "Run both backends, whatever --backend says, on one input; exit with 1 past a bound."


def add_arguments(parser):
    """Declare the command's arguments."""
    add_question(parser)
    add_backend(parser)
    add_sampling(parser, max_new_tokens=8)


def run(options):
    """Print the comparison of the NumPy backend with its twin."""
    twin_backend, device = prepare.import_twin(), prepare.device(options)
    # Both backends must draw alike.
    settings = prepare.sampling(options, seed=0 if options.seed is None else options.seed)
    twin_backend.check_device(device)
    [(path, image)] = prepare.images(options, most=1)
    model = prepare.reference(options, options.dtype)
    twin = twin_of(model, device)
    with npgemma.record() as expected:
        answer = model.generate(image, options.prompt, **settings)
    comparison, found = Comparison(expected, BOUNDS[options.dtype] * DEVICE_FACTOR[device]), {}

    def sink(name, array):
        found[name] = array
        comparison.sink(name, array)

    with npgemma.record(sink=sink):
        twin_answer = twin.generate(image, options.prompt, **settings)
    report = comparison.report(answer.token_ids, twin_answer.token_ids)
    report |= _own_errors(model, image, options, found, twin_answer.token_ids)
    # In bfloat16 rounding adds up over the layers as the weights will have it: there only own errors are judged.
    together = report["passed"] or (options.dtype == "bfloat16" and comparison.complete and report["same_tokens"])
    report["passed"] = together and not report["past_limit"]
    about = {"image": path, "prompt": options.prompt, "dtype": options.dtype, "device": device}
    print(json.dumps(about | report) if options.json else parity_table(about | report), flush=True)
    return 0 if report["passed"] else PAST_BOUND


def _own_errors(model, image, options, found, token_ids):
    """Judge every operation of the twin by itself; of int8, which is no rounding of the twin's, nothing is judged."""
    if options.dtype == "int8":
        return {"own_errors": [], "past_limit": []}
    port = Port(found, token_ids, options.dtype)
    replays = Replays(exact(model), lambda: pixels_of(image), options.prompt, port)
    return {"own_errors": own_errors(replays), "past_limit": replays.wrong(replays.right)}


def twin_of(model, device="cpu"):
    """Return the model on the torch backend, all else the same; for int8 weights, what they were rounded from.

    Parameters
    ----------
    model : npgemma.Model
        On the NumPy backend.
    device : str

    Returns
    -------
    npgemma.Model
    """
    from torch_ref.backend import to_torch, torch_backend

    dtype, params = model.backend.dtype, model.params
    if dtype == "int8":
        dtype = "float32"
        params, _ = conversion.read_folder(model.source, dtype)
    backend = torch_backend(dtype, device)
    return dataclasses.replace(model, params=to_torch(params, dtype, device), backend=backend)
