"""How fast npgemma is beside Hugging Face's transformers: ``python reports/against_hugging_face.py DIR [cpu|cuda]``.

``DIR`` is a folder of ``python -m conversion synthesize``. Every run is a process of its own, on an image and a short
prompt, and each kind is measured like the other: the first token, then steps with one, two, four and sixteen rows that
all go on from there; loading (`npgemma.benchmarks.runs` says from where); and a whole process, from its start to twenty
tokens. All of it is done in three rounds, every program once in each, and the middle one counts. All rounds are kept.

What the processor allows is measured in every round too and kept as ``least``: for a load in float32, the time in
which that memory is written, on all cores; for the stages, what `npgemma.benchmarks.speed.limits` says of our own runs.

The machine should have nothing else to do, and memory for Hugging Face's float32 model, 17.5 GB. What was measured is
kept in ``reports/against_hugging_face_NAME_DEVICE.json``, NAME being the published size.
"""

import copy
import importlib
import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "reports")]

from npgemma.benchmarks import runs, speed  # noqa: E402
from npgemma.benchmarks.machine import machine  # noqa: E402
from npgemma.benchmarks.stages import time_stages  # noqa: E402

RUNS = {
    "cpu": ["Hugging Face float32", "Hugging Face bfloat16"]
    + [f"numpy {dtype}" for dtype in ("float32", "bfloat16", "int8")]
    + ["torch float32", "torch bfloat16"],
    "cuda": ["Hugging Face bfloat16", "torch bfloat16", "torch bfloat16 --static"],
}
# By program: what its process imports before a load.
LIBRARIES = {
    "numpy": "npgemma",
    "torch": "torch_ref",
    "Hugging Face": "transformers.models.paligemma.modeling_paligemma",
}
BATCHES, STEPS, WHOLE_TOKENS, ROUNDS = (1, 2, 4, 16), 6, 20, 3
PROMPT = "caption en"


class HuggingFace:
    """The stages of Hugging Face's model, with the methods of `npgemma.benchmarks.stages.Stages`."""

    def __init__(self, folder, dtype, device):
        import torch
        from transformers import PaliGemmaForConditionalGeneration

        from npgemma.image import load_pixels
        from npgemma.tokenizer import Tokenizer
        from torch_ref.backend import torch_backend

        self.backend = torch_backend(dtype, device)
        self.clock, self.device = self.backend.clock, device
        start = self.clock()
        model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype))
        self.model = model.eval().to(device)
        self.load_seconds = self.clock() - start
        prompt = Tokenizer(pathlib.Path(folder) / "tokenizer.model").prompt(PROMPT)
        ids = torch.tensor([[model.config.image_token_id] * model.config.text_config.num_image_tokens + prompt])
        pixels = load_pixels(ROOT / "tiny" / "example.png", model.config.vision_config.image_size)
        self.inputs = {
            "input_ids": ids.to(device),
            "attention_mask": torch.ones_like(ids, device=device),
            "pixel_values": torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device, model.dtype),
        }

    def encode(self):
        """Return the image tokens."""
        return self.model.get_image_features(self.inputs["pixel_values"])

    def prefill(self, image):
        """Return the cache that image and prompt fill: of the whole first token, since the image is encoded again."""
        return self.model(**self.inputs, use_cache=True, logits_to_keep=1).past_key_values

    def repeat(self, filled, batch):
        """Return a cache of so many rows that all hold what one row holds."""
        cache = copy.deepcopy(filled)
        cache.batch_repeat_interleave(batch)
        return cache

    def step(self, cache, batch):
        """Prepare a further token of each row; return the function that computes its logits."""
        import torch

        ids = torch.full((batch, 1), 7, device=self.device)
        mask = torch.ones(batch, cache.get_seq_length() + 1, dtype=torch.long, device=self.device)
        more = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        return lambda: self.model(input_ids=ids, attention_mask=mask, **more).logits[:, -1]

    def choose(self, logits):
        """Choose the most probable tokens."""
        logits.argmax(-1).tolist()

    def measure(self, **how):
        """Return what `npgemma.benchmarks.speed.measure` does of our models, but no limits."""
        with self.backend.session():
            stages = time_stages(self, **how)
        for seconds in ("seconds", "processor_seconds"):
            stages["prefill"][seconds] -= stages["vision tower"][seconds]
        return {
            "machine": machine(self.device),
            "model": {"dtype": self.backend.dtype, "parameters": sum(p.numel() for p in self.model.parameters())},
            "load_seconds": self.load_seconds,
            "stages": stages,
            "peak_bytes": self.backend.peak_bytes(),
        }


def measure(run, folder, device, **how):
    """Load a program in this process and time its stages; return when and on what, and the figures of `speed.measure`.

    ``touch_seconds`` beside the stages is the least that a load can take.
    """
    load_before = machine()["load_before"]
    program, dtype, flags = runs.parts(run)
    # Before memory is touched, so that nothing but the load follows.
    library = importlib.import_module(LIBRARIES[program])
    touched = runs.apart(runs.touch, folder)
    if program == "Hugging Face":
        found = HuggingFace(folder, dtype, device).measure(**how)
    else:
        model = library.load(folder, dtype=dtype, device=device, static="--static" in flags)
        found = speed.measure(model, **how)
    here = found.pop("machine") | {"load_before": load_before}
    return runs.stamp() | {"machine": here}, found | {"touch_seconds": touched}


def whole_process(run, folder, device):
    """Time a process from its start to twenty tokens and its end."""
    program, dtype, flags = runs.parts(run)
    command = [__file__, folder, device, run]
    if program != "Hugging Face":
        command = [ROOT / "cli.py", "--backend", program, *flags, "--dtype", dtype, "--device", device]
        command += ["--checkpoint", folder, "--max-tokens", str(WHOLE_TOKENS)]
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def answer(folder, device, run):
    """Take an image, give an answer: all that `whole_process` times of Hugging Face."""
    loaded = HuggingFace(folder, runs.parts(run)[1], device)
    length = {"max_new_tokens": WHOLE_TOKENS, "min_new_tokens": WHOLE_TOKENS}
    loaded.model.generate(**loaded.inputs, **length, do_sample=False)


def figures(run, folder, device):
    """Return when and on what a run was measured, and its figures."""
    whole = whole_process(run, folder, device)
    about, found = measure(run, folder, device, batches=BATCHES, tokens=STEPS - 1, repeats=1)
    stages = found["stages"]

    def column(what):
        """Return a figure of the first token and of the steps."""
        first = {"first token": stages["vision tower"][what] + stages["prefill"][what]}
        return first | {stage: stages[stage][what] for stage in stages if stage.startswith("token")}

    least = (column("limit") if "limits" in found else {}) | {"load": found["touch_seconds"]}
    times = {"load": found["load_seconds"]} | column("seconds")
    return about, times | {"peak_bytes": found["peak_bytes"], "whole process": whole, "least": least}


def size_of(folder):
    """Return the published size that a folder has, for the report's name."""
    from conversion.folder import open_folder
    from npgemma.config import PUBLISHED

    config = open_folder(folder)[0]
    known = [name for name, published in PUBLISHED.items() if published == config]
    if not known:
        make = f"make one with python -m conversion synthesize NAME: {', '.join(PUBLISHED)}"
        raise SystemExit(f"{folder} is of no published size: {make}")
    return known[0]


def main(folder, device="cpu"):
    """Measure all runs in rounds, each in processes of its own."""
    from conversion.folder import describe

    path = ROOT / "reports" / f"against_hugging_face_{size_of(folder)}_{device}.json"
    held, report = describe(folder), {}
    checkpoint = f"{held['parameters']:,} parameters, {held['tensors'][0]['dtype']} file"
    for run, found in runs.in_turn(figures, RUNS[device], ROUNDS, folder, device):
        abouts, rounds = zip(*found)
        # Those of the first run, whose versions are all that there are.
        report = report or abouts[0] | {"checkpoint": checkpoint, "device": device, "runs": {}}
        report["runs"][run] = runs.middle(rounds) | {"rounds": rounds}
        # After each round, so that one that is broken off leaves the others.
        if run == RUNS[device][-1]:
            path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    (main if len(sys.argv) < 4 else answer)(*sys.argv[1:])
