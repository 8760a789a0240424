"""``npgemma diagnose``: name the mistakes of a port from its arrays or logits; or list the known ones."""

import json

from npgemma.command import PAST_BOUND, prepare
from npgemma.command.arguments import add_question
from npgemma.command.compare import PROMPT, finite, read_port, reference_of
from npgemma.command.port_tables import diagnosis_table, logits_table, mistakes_table
from npgemma.command.progress import Progress
from npgemma.errors import InputError
from npgemma.files.reading import naming
from npgemma.porting.bounds import LARGEST_OWN_ERROR
from npgemma.porting.mistakes import MISTAKES

SUMMARY = "Name the mistakes of another program (a port) from its arrays or logits; or list those that are known."


def add_arguments(parser):
    """Declare the command's arguments."""
    parser.add_argument("port", metavar="TRACE", nargs="?", help="its arrays: .safetensors, .npz, or a folder of .npy")
    parser.add_argument(
        "--logits", metavar="FILE",
        help="safetensors or npz file with a port's 'logits' (n, V), a row for each token of its answer, and "
        "'token_ids' (n,)",
    )  # fmt: skip
    parser.add_argument("--map", metavar="MAP", help="its names and layouts: a TOML file, or a built-in map's name")
    parser.add_argument(
        "--dtype", choices=tuple(LARGEST_OWN_ERROR),
        help="the port's (default: bfloat16 or float16 if that holds all its numbers, else float32)",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print every known mistake, and what programs made it")
    parser.set_defaults(reference=None)
    add_question(parser, prompt=None, described=f"the trace's own, if it has one; else {PROMPT}")


def run(options):
    """Print the library of mistakes, or what is wrong with a port."""
    if options.list:
        report = [
            {"id": mistake.id, "says": mistake.says, "made_by": mistake.made_by, "place": mistake.place}
            for mistake in MISTAKES.values()
        ]
        print(json.dumps(report) if options.json else mistakes_table(report), flush=True)
        return 0
    if (options.port is None) == (options.logits is None):
        raise InputError("diagnose takes the trace of a port, or --logits FILE, or --list")
    report = _from_logits(options) if options.logits is not None else _from_trace(options)
    table = logits_table if options.logits is not None else diagnosis_table
    print(json.dumps(finite(report)) if options.json else table(report), flush=True)
    return 0 if report["verdict"] in ("right", "rounding") else PAST_BOUND


def _from_logits(options):
    """Return what is wrong with a port that has written its logits."""
    from npgemma.porting.logits import Question, diagnose, read_answer

    def load():
        return prepare.image(options)[1]

    path, _ = prepare.image(options)
    model = prepare.reference(options, "float32")
    answer, prompt = read_answer(options.logits, model), options.prompt or PROMPT
    question = Question(model, load, prompt, answer.token_ids)
    return {"image": path, "prompt": prompt} | diagnose(answer, question, options.dtype)


def _from_trace(options):
    """Return what is wrong with a port that has written its arrays."""
    from npgemma.porting.comparing import TOKENS
    from npgemma.porting.coverage import cover
    from npgemma.porting.diagnosis import diagnose
    from npgemma.porting.given_tokens import ids_of_trace, pixels_of
    from npgemma.porting.name_map import read_map
    from npgemma.porting.narrow import dtype_of
    from npgemma.porting.recalculated import replays_of
    from npgemma.porting.reference import traced
    from npgemma.porting.same_question import same_question

    arrays, rules = read_port(options), read_map(options.map) if options.map is not None else []
    given = arrays.pop(TOKENS, None)
    options.dtype = options.dtype or dtype_of(arrays.values())
    reference, _ = reference_of(options, given)
    coverage = cover(reference, arrays, rules)
    if given is None and (ids := ids_of_trace(coverage.shown)) != reference.token_ids:
        reference = traced(reference.model, reference.pixels, reference.about["ids"], ids)
    with naming(options.port):
        reference, coverage, other = same_question(reference, arrays, rules)

    def load():
        return pixels_of(prepare.image(options)[1])

    with naming(options.port):
        replays = replays_of(reference, coverage.shown, options.dtype, load, options.prompt)
    progress = Progress()
    report = diagnose(replays, lambda id: progress.note(f"trying {id}"))
    progress.end()
    about = {"port": options.port, "prompt": options.prompt, "dtype": options.dtype, "other_prompt": other}
    return about | report
