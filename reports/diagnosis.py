"""Diagnose Hugging Face's PaliGemma, broken in its own modules: ``python reports/diagnosis.py`` writes the outcomes.

It runs the cases that ``reports/diagnosis_hugging_face.json`` lacks: delete that to run all again. Each mistake is
planted in one of nine questions (three images, three prompts), chosen by its name; one of the steps in captions. The
slow tests run the same cases.
"""

import dataclasses
import functools
import json
import pathlib
import sys
import tempfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests"), str(ROOT / "examples")]

import foreign_port  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from dump_transformers import Dump  # noqa: E402
from support import GEMMA_2, write_random_folder  # noqa: E402

import npgemma  # noqa: E402
from npgemma.image import load_image  # noqa: E402
from npgemma.porting import logits  # noqa: E402
from npgemma.porting.coverage import cover  # noqa: E402
from npgemma.porting.diagnosis import Port, Replays, diagnose  # noqa: E402
from npgemma.porting.exact import exact  # noqa: E402
from npgemma.porting.logits.question import Question  # noqa: E402
from npgemma.porting.name_map import read_map  # noqa: E402
from npgemma.porting.reference import from_model  # noqa: E402

REPORT = ROOT / "reports" / "diagnosis_hugging_face.json"
EMBEDDED, RANDOM = "embedded", "random PaliGemma 2"
MAPS = {EMBEDDED: "transformers", RANDOM: "transformers_gemma2"}
# Shapes; three times as wide as high; a word.
IMAGES = ("example.png", "gallery/wide.png", "gallery/text.png")
PROMPTS = ("detect red circle ; blue square", "caption en", "ocr")
DTYPES = ("float64", "float32", "float16", "bfloat16")
# A mistake of the steps shows in no answer of one token; a caption always has several.
OF_STEPS = "position-skipped"
# These change no square image.
OF_SIDES = ("resize-letterbox", "resize-crop")
# Tokens of an answer: a trace shows every step by itself; in logits, mistakes of steps show in later rows.
TRACED, ROWS = 3, 6
TOGETHER = (
    ("image-scaled", "exact-gelu"),
    ("vision-epsilon", "rope-interleaved"),
    ("no-newline", "k-v-swapped"),
    ("text-unscaled", "position-skipped"),
    ("patch-weights-bfloat16", "gate-up-swapped"),
    ("vision-exact-gelu", "causal-prefix"),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A port to diagnose: what is planted in it, and from what it is diagnosed."""

    checkpoint: str
    dtype: str
    witness: str
    image: str
    prompt: str
    planted: tuple[str, ...] = ()

    @property
    def in_library(self):
        """Whether all that is planted is in the library, and so may be named."""
        return all(id in ALL_KNOWN for id in self.planted)

    @property
    def kind(self):
        """What is planted, in words."""
        return ("nothing", "one mistake" if self.in_library else "not in the library", "two mistakes")[
            len(self.planted)
        ]


ALL_KNOWN = foreign_port.KNOWN | foreign_port.KNOWN_OF_GEMMA_2


def asked(checkpoint, dtype, witness, *planted):
    """Return a case, its question chosen by all the rest."""
    drawn = zlib.crc32(" ".join((checkpoint, dtype, witness, *planted)).encode()) % 9
    prompt = "caption en" if OF_STEPS in planted else PROMPTS[drawn % 3]
    image = IMAGES[1] if set(planted) & set(OF_SIDES) else IMAGES[drawn // 3]
    return Case(checkpoint, dtype, witness, image, prompt, planted)


def unbroken():
    """Return the cases of right ports: every image, every prompt, every dtype."""
    for dtype in DTYPES:
        for witness in ("trace", "logits"):
            yield from (Case(EMBEDDED, dtype, witness, *pair) for pair in zip(IMAGES, PROMPTS, strict=True))
            yield asked(RANDOM, dtype, witness)


def broken(witness, dtype):
    """Return the cases of one mistake each: of the random weights' traces, every third of the shared ones."""
    for name in foreign_port.KNOWN | foreign_port.UNKNOWN:
        yield asked(EMBEDDED, dtype, witness, name)
    for name in list(foreign_port.KNOWN)[:: 3 if witness == "trace" else 1]:
        yield asked(RANDOM, dtype, witness, name)
    for name in foreign_port.KNOWN_OF_GEMMA_2:
        yield asked(RANDOM, dtype, witness, name)


def together():
    """Return the cases of two mistakes at once."""
    return [asked(EMBEDDED, "float32", "trace", *pair) for pair in TOGETHER]


def cases():
    """Return all cases."""
    one = [*broken("trace", "float32"), *broken("logits", "float32"), *broken("logits", "bfloat16")]
    return [*unbroken(), *one, *together()]


@functools.cache
def ready(checkpoint, dtype):
    """Return the model, the reference of a trace, and Hugging Face's model."""
    folder = random_folder() if checkpoint == RANDOM else None
    model = npgemma.load(folder)
    return model, exact(npgemma.load(folder, dtype="float64"), dtype), foreign_port.Port(model, dtype)


@functools.cache
def random_folder():
    """Return a folder of a PaliGemma 2 of random weights."""
    folder = tempfile.TemporaryDirectory()
    # As in the published models, no answer reaches the window's end: the map holds for those.
    text = dataclasses.replace(GEMMA_2.text, sliding_window=96)
    # It lives as long as the process.
    random_folder.kept = folder
    return write_random_folder(pathlib.Path(folder.name), dataclasses.replace(GEMMA_2, text=text))


def outcome(case):
    """Diagnose the port of a case; return its own fields, its ``kind``, ``verdict`` and ``named``."""
    with np.errstate(all="ignore"):  # a mistake may overflow
        report = (from_trace if case.witness == "trace" else from_logits)(case)
    return dataclasses.asdict(case) | {
        "kind": case.kind,
        "verdict": report["verdict"],
        "named": [each["name"] for each in report["mistakes"]],
    }


def plant(case, port):
    """Break a port as a case says."""
    for name in case.planted:
        (ALL_KNOWN | foreign_port.UNKNOWN)[name](port)


def from_trace(case):
    """Diagnose Hugging Face's arrays, under the shipped map."""
    model, reference, port = ready(case.checkpoint, case.dtype)
    path, dumps = ROOT / "tiny" / case.image, []

    def break_and_watch(port):
        plant(case, port)
        dumps.append(Dump(port.model))
        port.stack.enter_context(dumps[0].functions(port.model))

    _, tokens = port.answer(path, case.prompt, TRACED, break_and_watch)
    arrays = {name: tensor.double().numpy() for name, tensor in dumps[0].arrays.items()}
    size, token_ids = reference.config.vision.image_size, tokens.tolist()
    expected = from_model(model, load_image(path, size), port.ids, token_ids)
    pairs = cover(expected, arrays, read_map(MAPS[case.checkpoint])).pairs
    found = {name: pair.raw if pair.found is None else pair.found for name, pair in pairs.items()}
    given = Port(found, token_ids, case.dtype)
    return diagnose(Replays(reference, lambda: load_image(path, size).pixels_BYXC, case.prompt, given))


def from_logits(case):
    """Diagnose Hugging Face's logits and tokens."""
    model, _, port = ready(case.checkpoint, case.dtype)
    path, size = ROOT / "tiny" / case.image, model.config.vision.image_size
    found, tokens = port.answer(path, case.prompt, ROWS, functools.partial(plant, case))
    question = Question(model, lambda: load_image(path, size), case.prompt, tokens.tolist())
    answer = logits.Answer(found[:, : model.tokenizer.size].astype(np.float64), tokens.tolist())
    return logits.diagnose(answer, question, case.dtype)


def key(case):
    """Return what distinguishes a case, or the outcome of one."""
    fields = case if isinstance(case, dict) else dataclasses.asdict(case)
    return json.dumps([fields[field.name] for field in dataclasses.fields(Case)])


def write(outcomes):
    """Write outcomes, one a line, in the order of the cases, and how many cases there are."""
    order = {key(case): i for i, case in enumerate(cases())}
    lines = ",\n".join(json.dumps(each) for each in sorted(outcomes, key=lambda each: order[key(each)]))
    REPORT.write_text(f'{{"cases": {len(order)}, "outcomes": [\n{lines}\n]}}\n')


def main():
    """Run the cases whose outcomes are not in the report yet, and write them."""
    torch.set_num_threads(1)
    outcomes = json.loads(REPORT.read_text())["outcomes"] if REPORT.exists() else []
    known = set(map(key, outcomes))
    for case in cases():
        if key(case) not in known:
            outcomes.append(outcome(case))
            print(json.dumps(outcomes[-1]), flush=True)
            write(outcomes)


if __name__ == "__main__":
    main()
