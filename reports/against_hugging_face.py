"""How fast npgemma is beside Hugging Face's transformers: ``python reports/against_hugging_face.py DIR [cpu|cuda]``.

``DIR`` is a folder of ``python -m conversion synthesize``. Every run is a process of its own, on an image and a short
prompt, and each kind is measured like the other: the first token, then steps with one, two, four and sixteen rows that
all go on from there; loading; and a whole process, from its start to twenty tokens. All of it is done in three rounds,
every program once in each, and the middle one counts. All rounds are kept.

Before a load is timed, its process imports what it needs, reads the files, and then touches as much memory as the
weights in float32 need: a virtual machine that must first be given memory waits for it longer than loading takes
otherwise, and which program meets that would depend on what ran before. The memory is touched last, since such a
machine takes back within seconds what lies idle.

What the processor allows is measured in every round too and kept as ``least``: for a load in float32, the time in
which that memory is written, on all cores; for the stages, what `npgemma.benchmarks.bench.limits` says of our own runs.

The machine should have nothing else to do, and memory for Hugging Face's float32 model, 17.5 GB. What was measured is
kept in ``reports/against_hugging_face_NAME_DEVICE.json``, NAME being the published size.
"""

import copy
import datetime
import json
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "reports")]

from readme import commit  # noqa: E402

RUNS = {
    "cpu": ["Hugging Face float32", "Hugging Face bfloat16"]
    + [f"numpy {dtype}" for dtype in ("float32", "bfloat16", "int8")]
    + ["torch float32", "torch bfloat16"],
    "cuda": ["Hugging Face bfloat16", "torch bfloat16", "torch bfloat16 --static"],
}
BATCHES, STEPS, WHOLE_TOKENS, ROUNDS = (1, 2, 4, 16), 6, 20, 3
PROMPT = "caption en"


def hugging_face(folder, dtype, device, before=lambda folder: None):
    """Return the model, the time it took to load, and its inputs; ``before`` is called just before the load."""
    import torch
    from transformers import PaliGemmaForConditionalGeneration

    from npgemma.image import load_pixels
    from npgemma.tokenizer import Tokenizer

    before(folder)
    start = time.perf_counter()
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().to(device)
    seconds = clock(device) - start
    prompt = Tokenizer(pathlib.Path(folder) / "tokenizer.model").prompt(PROMPT)
    ids = torch.tensor([[model.config.image_token_id] * model.config.text_config.num_image_tokens + prompt])
    pixels = load_pixels(ROOT / "tiny" / "example.png", model.config.vision_config.image_size)
    inputs = {
        "input_ids": ids.to(device),
        "attention_mask": torch.ones_like(ids, device=device),
        "pixel_values": torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device, model.dtype),
    }
    return model, seconds, inputs


def measure_hugging_face(folder, dtype, device):
    """Time Hugging Face's stages as `npgemma.benchmarks.bench.measure` does ours."""
    import torch

    model, load, inputs = hugging_face(folder, dtype, device)
    found, length = {"load": load}, inputs["input_ids"].shape[1]
    with torch.inference_mode():
        # The first time memory is touched and nothing is warm.
        for _ in range(2):
            start = clock(device)
            read = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
            found["first token"] = clock(device) - start
        for batch in BATCHES:
            cache, seconds = copy.deepcopy(read), []
            cache.batch_repeat_interleave(batch)
            for step in range(STEPS):
                mask = torch.ones(batch, length + step + 1, dtype=torch.long, device=device)
                ids = torch.full((batch, 1), 7, device=device)
                start = clock(device)
                model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
                seconds.append(clock(device) - start)
            found[f"token, batch {batch}"] = statistics.median(seconds[1:])
    return found | {"peak_bytes": peak_bytes() if device == "cpu" else torch.cuda.max_memory_allocated()}


def clock(device):
    """Return the time in seconds, after all work that was begun has ended."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def answer(run, folder, device):
    """Take an image, give an answer: all that `whole_process` times of Hugging Face."""
    model, _, inputs = hugging_face(folder, parts(run)[1], device)
    model.generate(**inputs, max_new_tokens=WHOLE_TOKENS, min_new_tokens=WHOLE_TOKENS, do_sample=False)


def ours(kind, folder, dtype, device, before=lambda folder: None):
    """Load a model of ours, of a kind such as ``torch --static``; ``before`` is called just before the load."""
    import npgemma

    if kind == "numpy":
        before(folder)
        return npgemma.load(folder, dtype=dtype)
    import torch_ref

    before(folder)
    return torch_ref.load(folder, dtype=dtype, device=device, static="--static" in kind)


def measure_ours(kind, folder, dtype, device):
    """Time our own stages."""
    from npgemma.benchmarks.bench import measure

    report = measure(ours(kind, folder, dtype, device), BATCHES, STEPS - 1, repeats=1)
    seconds = {stage: numbers["seconds"] for stage, numbers in report["stages"].items()}
    least = {stage: numbers["limit"] for stage, numbers in report["stages"].items()}
    for times in (seconds, least):
        times["first token"] = times.pop("vision tower") + times.pop("prefill")
    return {"load": report["load_seconds"]} | seconds | {"peak_bytes": report["peak_bytes"], "least": least}


def stages(run, folder, device):
    """Time a model's stages."""
    kind, dtype = parts(run)
    if kind == "Hugging Face":
        return measure_hugging_face(folder, dtype, device)
    return measure_ours(kind, folder, dtype, device)


def load(run, folder, device):
    """Return how long a model takes to load, from files and into memory that were used just before."""
    kind, dtype = parts(run)
    if kind == "Hugging Face":
        return hugging_face(folder, dtype, device, touch_beside)[1]
    return ours(kind, folder, dtype, device, touch_beside).load_seconds


def whole_process(run, folder, device):
    """Time a process from its start to twenty tokens and its end."""
    kind, dtype = parts(run)
    command = [__file__, folder, device, "answer", run]
    if kind != "Hugging Face":
        command = [ROOT / "cli.py", "--backend", *kind.split(), "--dtype", dtype, "--device", device]
        command += ["--checkpoint", folder, "--max-tokens", str(WHOLE_TOKENS)]
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def parts(run):
    """Return what runs, with its flags, and its dtype: ``torch --static`` and ``bfloat16``."""
    kind, dtype, flags = re.fullmatch(r"(.+) (\w+?\d+)(.*)", run).groups()
    return kind + flags, dtype


def touch(run, folder, device):
    """Read the files; then twice write as much memory as the weights in float32 need, and return how long it took."""
    import numpy as np

    from conversion.folder import describe
    from npgemma.fast import threads

    for path in pathlib.Path(folder).glob("*.safetensors"):
        with open(path, "rb") as file:
            while file.read(2**24):
                pass
    parameters = describe(folder)["parameters"]

    def write():
        """Write new memory; return the time."""
        start = time.perf_counter()
        numbers = np.empty(parameters, dtype=np.float32)
        threads.split(lambda first, last: numbers[first:last].fill(1), parameters, threads.even(parameters, 2**24))
        return time.perf_counter() - start

    write()
    return write()


def touch_beside(folder):
    """Do the same in a process of its own: the calling one then has no more memory at its peak than its model needs."""
    return child("touch", "any", folder, "cpu")


def child(what, run, folder, device):
    """Do a part of a run in a process of its own; return what was measured."""
    command = [sys.executable, __file__, folder, device, what, run]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def peak_bytes():
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def about(folder, device):
    """Return what was measured when, on what, with which versions."""
    import torch  # noqa: F401  so that its version is told
    import transformers

    from conversion.folder import describe
    from npgemma.benchmarks.bench import machine

    held, here = describe(folder), machine(device)
    here["versions"]["transformers"] = transformers.__version__
    return {
        "date": str(datetime.date.today()),
        "commit": commit(),
        "checkpoint": f"{held['parameters']:,} parameters, {held['tensors'][0]['dtype']} file",
        "device": device,
        "machine": here,
    }


def size_of(folder):
    """Return the published size that a folder has, for the report's name."""
    from conversion.folder import open_folder
    from npgemma.config import PUBLISHED

    config = open_folder(folder)[0]
    known = [name for name, published in PUBLISHED.items() if published == config]
    if not known:
        raise SystemExit(f"{folder} is of no published size: make one with python -m conversion synthesize NAME")
    return known[0]


def main(folder, device="cpu"):
    """Measure all runs in rounds, each in processes of its own."""
    path = ROOT / "reports" / f"against_hugging_face_{size_of(folder)}_{device}.json"

    report, rounds = about(folder, device), {run: [] for run in RUNS[device]}
    for _ in range(ROUNDS):
        for run, found in rounds.items():
            whole = whole_process(run, folder, device)
            times, load = child("stages", run, folder, device), child("load", run, folder, device)
            least = times.pop("least", {}) | {"load": touch_beside(folder)}
            found.append(times | {"load": load, "whole process": whole, "least": least})
        # After each round, so that one that is broken off leaves the others.
        report["runs"] = {run: middle(found) | {"rounds": found} for run, found in rounds.items()}
        path.write_text(json.dumps(report, indent=2) + "\n")


def middle(rounds):
    """Return the median of every figure."""
    if not isinstance(rounds[0], dict):
        return statistics.median(rounds)
    return {what: middle([found[what] for found in rounds]) for what in rounds[0]}


def one(folder, device, what, run):
    """Do what one of these processes is for, and print what was measured."""
    work = {"stages": stages, "load": load, "touch": touch, "answer": answer}[what]
    print(json.dumps(work(run, folder, device)))


if __name__ == "__main__":
    (main if len(sys.argv) < 4 else one)(*sys.argv[1:])
