"""How fast npgemma is beside Hugging Face's transformers: ``python tests/against_hugging_face.py DIR``.

``DIR`` is a folder of ``python -m conversion synthesize``. Every run is a process of its own, one after the other, on
a picture and a short prompt, and each kind is measured like the other: the first token, then steps with one, two, four
and sixteen rows that all go on from there. The machine should have nothing else to do, and
memory for Hugging Face's float32 model, 17.5 GB. What was measured is kept in ``reports/against_hugging_face.json``.
"""

import copy
import datetime
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
REPORT = ROOT / "reports" / "against_hugging_face.json"
sys.path.insert(0, str(ROOT))
RUNS = [f"{kind} {dtype}" for kind in ("Hugging Face", "numpy") for dtype in ("float32", "bfloat16")] + ["numpy int8"]
BATCHES, STEPS, WHOLE_TOKENS = (1, 2, 4, 16), 6, 20
PROMPT = "caption en"


def hugging_face(folder, dtype):
    """Return the model, the time it took to load, and its inputs."""
    import torch
    from transformers import PaliGemmaForConditionalGeneration

    from npgemma.image import load_pixels
    from npgemma.tokenizer import Tokenizer

    start = time.perf_counter()
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    seconds = time.perf_counter() - start
    prompt = Tokenizer(pathlib.Path(folder) / "tokenizer.model").prompt(PROMPT)
    ids = torch.tensor([[model.config.image_token_id] * model.config.text_config.num_image_tokens + prompt])
    pixels = load_pixels(ROOT / "tiny" / "example.png", model.config.vision_config.image_size)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.from_numpy(pixels).permute(0, 3, 1, 2).to(model.dtype),
    }
    return model, seconds, inputs


def measure_hugging_face(folder, dtype):
    """Time Hugging Face's stages as `npgemma.bench.measure` does ours."""
    import torch

    model, load, inputs = hugging_face(folder, dtype)
    found, length = {"load": load}, inputs["input_ids"].shape[1]
    with torch.inference_mode():
        # The first time memory is touched and nothing is warm.
        for _ in range(2):
            start = time.perf_counter()
            read = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
            found["first token"] = time.perf_counter() - start
        for batch in BATCHES:
            cache, seconds = copy.deepcopy(read), []
            cache.batch_repeat_interleave(batch)
            for step in range(STEPS):
                mask = torch.ones(batch, length + step + 1, dtype=torch.long)
                new = {"input_ids": torch.full((batch, 1), 7), "attention_mask": mask, "past_key_values": cache}
                start = time.perf_counter()
                model(**new, use_cache=True, logits_to_keep=1)
                seconds.append(time.perf_counter() - start)
            found[f"token, batch {batch}"] = statistics.median(seconds[1:])
    return found | {"peak_bytes": peak_bytes()}


def answer_by_hugging_face(folder, dtype):
    """Take a picture, give an answer: all that `measure_whole` times of Hugging Face."""
    model, _, inputs = hugging_face(folder, dtype)
    model.generate(**inputs, max_new_tokens=WHOLE_TOKENS, min_new_tokens=WHOLE_TOKENS, do_sample=False)


def measure_numpy(folder, dtype):
    """Time our own stages."""
    import npgemma
    from npgemma.bench import measure

    model = npgemma.load(folder, dtype)
    report = measure(model, BATCHES, STEPS - 1, repeats=1)
    seconds = {stage: numbers["seconds"] for stage, numbers in report["stages"].items()}
    first = seconds.pop("vision tower") + seconds.pop("prefill")
    return {"load": report["load_seconds"], "first token": first} | seconds | {"peak_bytes": report["peak_bytes"]}


def measure_whole(run, folder):
    """Time a process from its start to twenty tokens and its end."""
    kind, dtype = run.rsplit(" ", 1)
    if kind == "numpy":
        command = [ROOT / "cli.py", "--checkpoint", folder, "--dtype", dtype, "--max-tokens", str(WHOLE_TOKENS)]
    else:
        command = [__file__, folder, "answer", run]
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def peak_bytes():
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def about(folder):
    """Return what was measured when, on what, with which versions."""
    import numpy
    import torch
    import transformers

    from conversion.folder import describe
    from npgemma import threads

    held = describe(folder)
    asked = ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, check=True, capture_output=True, text=True)
    versions = {"numpy": numpy.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    return {
        "date": str(datetime.date.today()),
        "commit": commit.stdout.strip(),
        "checkpoint": f"{held['parameters']:,} parameters, {held['tensors'][0]['dtype']} file",
        "cores": threads.count(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def main(folder):
    """Measure all runs one after the other, each in processes of its own."""
    report = about(folder) | {"runs": {}}
    for run in RUNS:
        command = [sys.executable, __file__, folder, "stages", run]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        found["whole process"] = measure_whole(run, folder)
        report["runs"][run] = found
        print(run, found, flush=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")


def one(folder, what, run):
    """Do what one of these processes is for."""
    kind, dtype = run.rsplit(" ", 1)
    if what == "answer":
        answer_by_hugging_face(folder, dtype)
    else:
        print(json.dumps((measure_numpy if kind == "numpy" else measure_hugging_face)(folder, dtype)))


if __name__ == "__main__":
    (main if len(sys.argv) == 2 else one)(*sys.argv[1:])
