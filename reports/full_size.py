"""Published sizes at full size: ``python reports/full_size.py NAME DIR [--rounds N] RUN...``.

``DIR`` is the folder that ``python -m conversion synthesize NAME DIR`` wrote. A RUN is ``"numpy float32"``, ``"numpy
bfloat16"``, ``"numpy int8"``, ``"torch float32"``, ``"torch bfloat16"``, ``"Hugging Face float32"`` or ``"Hugging Face
bfloat16"``. Each is a process of its own, one after the other, and takes an image, a short prompt and four tokens. A
stage that takes less than ten seconds is done again three times, and the middle one of these counts. Before a load,
files are read and memory is touched as ``against_hugging_face.py`` does.

With ``--rounds`` the runs are done in turn, so often, and of every figure the middle one counts; all are kept.

``reports/full_size_NAME.json`` keeps every run, those of earlier commands too, each with its date, its commit and how
busy the machine was. The machine should have nothing else to do. In float32 a model of 3 thousand million parameters
needs 12 GB of memory here, and 17.5 GB in Hugging Face's transformers.
"""

import argparse
import datetime
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "reports")]

from against_hugging_face import PROMPT, clock, hugging_face, ours, parts, peak_bytes, touch_beside  # noqa: E402
from readme import commit  # noqa: E402

SHORT, AGAIN, STEPS = 10, 3, 4


def timed(function):
    """Return what a function takes, as the module's docstring says, and what it returned.

    With the seconds of all its threads together: where other programs want the cores too, these grow less.
    """
    taken = []
    while not taken or (taken[0][0] < SHORT and len(taken) <= AGAIN):
        start, busy = clock("cpu"), time.process_time()
        found = function()
        taken.append((clock("cpu") - start, time.process_time() - busy))
    return sorted(taken[1:] or taken)[len(taken[1:]) // 2], found


def measure_ours(kind, folder, dtype):
    """Time our own stages."""
    import numpy as np

    import npgemma
    from npgemma.benchmarks.bench import limits
    from npgemma.fast.dtypes import DTYPES
    from npgemma.image import load_pixels
    from npgemma.params import leaves

    model = ours(kind, folder, dtype, "cpu", touch_beside)
    backend, params, config = model.backend, model.params, model.config
    pixels_BYXC = backend.to_activation(load_pixels(npgemma.example_image(), config.vision.image_size))
    prompt = model.tokenizer.prompt(PROMPT)
    ids_BT, valid_BT = backend.to_array(np.array([prompt])), backend.to_array(np.ones((1, len(prompt)), dtype=bool))
    S = config.image_tokens + len(prompt)

    def prefill():
        """Read image and prompt; return the cache they fill."""
        cache = backend.make_cache(config.text, 1, S + STEPS, image_BPD)
        backend.prefill(image_BPD, ids_BT, valid_BT, params, config, cache)
        return cache

    with backend.session():
        vision, image_BPD = timed(lambda: backend.encode_image(pixels_BYXC, params, config))
        first, cache = timed(prefill)
        tokens = []
        for step in range(STEPS):
            valid_BS = backend.to_array(np.ones((1, S + step + 1), dtype=bool))
            start = backend.clock()
            backend.step(backend.to_array(np.array([[7]])), valid_BS, params, config, cache)
            tokens.append(backend.clock() - start)
        # Before the limits are measured, which takes memory too.
        peak = peak_bytes()
        rate = limits(model)["operations_per_second"]
    weights = sum(int(np.prod(leaf.shape)) for *_, leaf in leaves(params)) * DTYPES[dtype].bytes
    return report(model.load_seconds, vision, first, tokens, peak, weights) | {"operations_per_second": rate}


def measure_hugging_face(folder, dtype):
    """Time Hugging Face's stages; the vision tower, with its projector, within the first token."""
    import torch

    model, load, inputs = hugging_face(folder, dtype, "cpu", touch_beside)

    def now():
        return clock("cpu"), time.process_time()

    times, length = {}, inputs["input_ids"].shape[1]
    model.model.vision_tower.register_forward_pre_hook(lambda *_: times.update(start=now()))
    model.model.multi_modal_projector.register_forward_hook(lambda *_: times.update(end=now()))
    with torch.inference_mode():
        first, found = timed(lambda: model(**inputs, use_cache=True, logits_to_keep=1))
        # Of the last time, while `timed` returns the middle one.
        vision, cache, tokens = (
            [end - start for start, end in zip(times["start"], times["end"])],
            found.past_key_values,
            [],
        )
        for step in range(STEPS):
            mask, ids = torch.ones(1, length + step + 1, dtype=torch.long), torch.full((1, 1), 7)
            start = clock("cpu")
            model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
            tokens.append(clock("cpu") - start)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    prefill = [whole - part for whole, part in zip(first, vision)]
    return report(load, vision, prefill, tokens, peak_bytes(), weights)


def report(load, vision, prefill, tokens, peak, weights):
    """Name what was measured: seconds, those of all threads together, and bytes."""
    return {
        "load": load,
        "vision tower": vision[0],
        "prefill": prefill[0],
        "vision tower, all threads": vision[1],
        "prefill, all threads": prefill[1],
        "token": statistics.median(tokens[1:]),
        "peak_bytes": peak,
        "weights_bytes": weights,
    }


def measure(folder, run):
    """Measure one run in this process."""
    kind, dtype = parts(run)
    from npgemma.benchmarks.bench import machine

    before = machine()["load_before"]
    found = measure_hugging_face(folder, dtype) if kind == "Hugging Face" else measure_ours(kind, folder, dtype)
    here = machine() | {"load_before": before}
    if kind == "Hugging Face":
        here["versions"]["transformers"] = sys.modules["transformers"].__version__
    return {"date": str(datetime.date.today()), "commit": commit(), "machine": here} | found


def main(name, folder, *runs, rounds=1):
    """Measure runs one after the other, each in a process of its own, and keep them beside the earlier ones."""
    from conversion.folder import open_folder
    from npgemma.config import PUBLISHED

    if open_folder(folder)[0] != PUBLISHED[name]:
        raise SystemExit(
            f"{folder} holds another size than {name}: make it with python -m conversion synthesize {name}"
        )
    path = ROOT / "reports" / f"full_size_{name}.json"
    measured = {run: [] for run in runs}
    for _ in range(rounds):
        for run, found in measured.items():
            command = [sys.executable, __file__, folder, run]
            found.append(
                json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
            )
            kept = {"checkpoint": f"{name}, random weights, bfloat16 file"}
            kept = json.loads(path.read_text()) if path.exists() else kept
            kept.setdefault("runs", {})[run] = together(found)
            path.write_text(json.dumps(kept, indent=2) + "\n")


def together(rounds):
    """Return one round as it is; of several the middle figures, and all of them."""
    if len(rounds) == 1:
        return rounds[0]
    figures = [{name: value for name, value in each.items() if isinstance(value, int | float)} for each in rounds]
    return (
        rounds[0]
        | {name: statistics.median(each[name] for each in figures) for name in figures[0]}
        | {"rounds": figures}
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("name")
        parser.add_argument("folder")
        parser.add_argument("runs", nargs="+", metavar="RUN")
        parser.add_argument("--rounds", type=int, default=1)
        asked = parser.parse_args()
        main(asked.name, asked.folder, *asked.runs, rounds=asked.rounds)
