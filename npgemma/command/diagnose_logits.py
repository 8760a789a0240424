"""``npgemma diagnose --logits FILE``: name a port's mistake from its logits."""

import json

from npgemma.command import PAST_BOUND, prepare
from npgemma.command.compare import PROMPT
from npgemma.porting.logits import diagnose, read_answer
from npgemma.porting.logits.question import Question
from npgemma.porting.mistakes import MISTAKES


def add_arguments(parser):
    """Declare the argument."""
    parser.add_argument(
        "--logits", metavar="FILE",
        help="safetensors or npz file with a port's 'logits' (n, V), a row for each token of its answer, and "
        "'token_ids' (n,)",
    )  # fmt: skip


def run(options):
    """Print the verdict."""
    [(path, _)] = prepare.images(options, most=1)
    model = prepare.reference(options, "float32")
    answer = read_answer(options.logits, model)
    prompt = options.prompt or PROMPT
    question = Question(model, lambda: prepare.images(options, most=1)[0][1], prompt, answer.token_ids)
    report = {"image": path, "prompt": prompt} | diagnose(answer, question, options.dtype)
    print(json.dumps(report) if options.json else table(report), flush=True)
    return 0 if report["verdict"] == "right" else PAST_BOUND


def table(report):
    """Lay out a diagnosis for reading."""
    lines = [
        f"{report['verdict']}: the port's logits are {report['own_error']:.1e} away from the right ones; rounding in "
        f"{report['dtype']} makes up to {report['rounding']:.0e}"
    ]
    lines += [f"    {report['says']}"] * bool(report["says"])
    for found in report["mistakes"]:
        known = MISTAKES[found["name"]]
        lines += [found["name"], f"    {known.says}", f"    made by: {known.made_by}", f"    shows in: {known.place}"]
        if found["c"] is not None:
            lines += [f"    with it, {found['explained_error']:.1e} are left; c = {found['c']:.2f}"]
    lines += ["", "these logits cannot show:"]
    return "\n".join([*lines, *(f"    {each['name']}: {each['reason']}" for each in report["undecidable"])])
