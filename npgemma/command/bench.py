"""``python cli.py bench``: print how fast a model runs, beside how fast it could."""

import json
import statistics

import npgemma
from npgemma.backward.paligemma import loss_and_gradients
from npgemma.benchmarks.learning import ROWS, time_learning
from npgemma.benchmarks.speed import measure
from npgemma.benchmarks.stages import PROMPT_TOKENS
from npgemma.command import prepare
from npgemma.command.arguments import add_backend, add_static, positive
from npgemma.command.progress import Progress
from npgemma.command.tables import bench_table
from npgemma.config import PUBLISHED
from npgemma.errors import InputError

SUMMARY = "Measure a model's speed, and compare it with the limits of this machine."

# Of a batch; a published model's keys and values of so many take more memory than most machines have.
MOST_ROWS = 4096


def add_arguments(parser):
    """Declare the command's arguments."""
    parser.add_argument(
        "--size",
        metavar="NAME",
        choices=PUBLISHED,
        help=f"instead of a checkpoint: stand-in weights of a published size, {', '.join(PUBLISHED)}",
    )
    parser.add_argument(
        "--batches", type=positive, nargs="+", default=[1, 4, 16], metavar="B", help="prompts at once (default: 1 4 16)"
    )
    parser.add_argument("--tokens", type=positive, default=8, metavar="N", help="steps to time (default: %(default)s)")
    parser.add_argument(
        "--backward", action="store_true",
        help=f"time a step of learning instead: loss and gradients of {ROWS} answers, in PyTorch by its autograd",
    )  # fmt: skip
    add_backend(parser)
    add_static(parser)


def run(options):
    """Print the measurements."""
    progress, backend = Progress(), prepare.backend_of(options)
    if options.size and options.checkpoint:
        raise InputError("pass either --size or --checkpoint")
    model = _stand_in(options.size, backend) if options.size else prepare.load(options, progress)
    context = model.config.text.context_length
    if model.config.image_tokens + PROMPT_TOKENS + options.tokens > context or max(options.batches) > MOST_ROWS:
        raise InputError(f"--tokens should fit the model's context of {context}, --batches be {MOST_ROWS} at most")
    about = {"checkpoint": options.size or str(model.folder), "backend": backend.name, "device": backend.device}
    if options.backward:
        return _backward(options, model, about)
    report = measure(model, options.batches, options.tokens, progress=lambda what: progress.note(f"measuring {what}"))
    progress.clear()
    about["static"] = options.static
    print(json.dumps(about | report) if options.json else bench_table(about | report), flush=True)
    return 0


def _backward(options, model, about):
    """Print how long a step of learning takes."""
    if model.backend.dtype not in ("float32", "float64") or options.static:
        raise InputError("--backward needs weights of float32 or float64, and no --static")
    gradients = prepare.import_autograd() if about["backend"] == "torch" else loss_and_gradients
    seconds = time_learning(model, gradients)
    about |= {"rows": ROWS, "seconds": statistics.median(seconds), "all_seconds": seconds}
    told = f"a step of learning, {ROWS} answers: {about['seconds']:.3f} s ({about['backend']} on {about['device']})"
    print(json.dumps(about) if options.json else told, flush=True)
    return 0


def _stand_in(size, backend):
    """Return a model of a published size whose weights mean nothing."""
    import conversion

    config = PUBLISHED[size]
    params = conversion.stand_in_params(config, backend.dtype)
    if backend.name == "torch":
        params = prepare.import_twin().to_torch(params, backend.dtype, backend.device)
    return npgemma.Model(params, config, backend, size)
