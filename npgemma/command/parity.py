"""``python cli.py parity``: run both backends on one input and print how far they are apart."""

import json

import npgemma
from npgemma.command import PAST_BOUND, prepare
from npgemma.command.arguments import add_backend, add_question, add_sampling
from npgemma.command.tables import parity_table
from npgemma.errors import InputError
from npgemma.files.writing import replacing
from npgemma.porting import own_errors
from npgemma.porting.backends import Comparison, twin_of
from npgemma.porting.bounds import BOUNDS, DEVICE_FACTOR
from npgemma.porting.given_tokens import pixels_of

SUMMARY = "Compare both backends, whatever --backend says, on one input; exit with 1 if a difference is past its bound."


def add_arguments(parser):
    """Declare the command's arguments."""
    add_question(parser)
    add_backend(parser)
    add_sampling(parser, max_new_tokens=8)
    parser.add_argument(
        "--report", metavar="FILE",
        help="make all checks of the checkpoint instead, in float64, float32 and bfloat16, on images and prompts of "
        "their own; write the measurements as JSON",
    )  # fmt: skip


def run(options):
    """Print the comparison of the NumPy backend with its twin."""
    if options.report is not None:
        return _report(options)
    twin_backend, device = prepare.import_twin(), prepare.device(options)
    # Both backends must draw alike.
    settings = prepare.sampling(options, seed=0 if options.seed is None else options.seed)
    twin_backend.check_device(device)
    path, image = prepare.image(options)
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
    report |= own_errors.of_twin(model, pixels_of(image), options.prompt, found, twin_answer.token_ids)
    # In bfloat16 rounding adds up over the layers as the weights will have it: there only own errors are judged.
    together = report["passed"] or (options.dtype == "bfloat16" and comparison.complete and report["same_tokens"])
    report["passed"] = together and not report["past_limit"]
    about = {"image": path, "prompt": options.prompt, "dtype": options.dtype, "device": device}
    print(json.dumps(about | report) if options.json else parity_table(about | report), flush=True)
    return 0 if report["passed"] else PAST_BOUND


def _report(options):
    """Make all checks, print their outcomes and how much of each bound was used, and write the report."""
    if (options.image, options.prompt, options.dtype) != (None, "caption en", "float32"):
        raise InputError("--report has images, prompts and dtypes of its own: leave out --image, --prompt and --dtype")
    prepare.import_twin()
    from npgemma.porting.parity import CHECKS, Parity, document, summary

    parity = Parity(prepare.checkpoint(options))
    # Opened first: a file that cannot be written is told before the work.
    with replacing(options.report) as file:
        for name in CHECKS:
            outcome, reason = parity.run(name)
            if not options.json:
                print(f"{outcome:7}  {name}" + (f": {reason}" if reason else ""), flush=True)
        written = json.dumps(document(parity), indent=1, allow_nan=False)
        file.write((written + "\n").encode())
    outcomes = [test["outcome"] for test in parity.tests]
    counts = ", ".join(f"{outcomes.count(each)} {each}" for each in dict.fromkeys(outcomes))
    last = f"{len(outcomes)} checks: {counts}; written to {options.report}"
    print(json.dumps(json.loads(written)) if options.json else "\n".join([*summary(parity.measurements), last]))
    return PAST_BOUND if "failed" in outcomes else 0
