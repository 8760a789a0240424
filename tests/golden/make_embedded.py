"""Make the golden file of the embedded checkpoint: what Hugging Face's PaliGemma answers about the held-out scenes.

``python tests/golden/make_embedded.py`` opens the folder as any user of transformers would, processor included, and
writes ``embedded.safetensors`` beside itself. Run it after the checkpoint was trained anew.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import PIL
import torch
import transformers
from safetensors.numpy import save_file

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(PROJECT))

from tiny.training import drawing, scenes  # noqa: E402
from tiny.training.evaluate import MAX_TOKENS, SCENES, held_out_examples  # noqa: E402

FILE = pathlib.Path(__file__).parent / "embedded.safetensors"
# Of two tokens whose logits are closer than this, rounding may choose.
CLOSE = 1e-3


def answers(folder, seeds):
    """Return what Hugging Face answers, scene by scene.

    Parameters
    ----------
    folder : pathlib.Path
    seeds : sequence of int

    Returns
    -------
    list of (ids, margin)
        For every prompt of every scene, in order: the tokens up to ``<eos>``, and by how much each token's logit was
        higher than the next.
    """
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    side, found = model.config.vision_config.image_size, []
    for seed in seeds:
        scene = scenes.scene(seed)
        prompts = ["<image>" + example.prompt for example in held_out_examples(scene)]
        pictures = [drawing.picture_for(scene, side)] * len(prompts)
        inputs = processor(text=prompts, images=pictures, return_tensors="pt", padding="longest")
        inputs.pop("labels", None)
        with torch.no_grad():
            settings = {"max_new_tokens": MAX_TOKENS, "do_sample": False, "return_dict_in_generate": True}
            output = model.generate(**inputs, **settings, output_logits=True)
        tokens = output.sequences[:, inputs["input_ids"].shape[1] :].numpy()
        highest = torch.stack(output.logits, dim=1).topk(2).values.numpy()
        for row, margin in zip(tokens.tolist(), highest[..., 0] - highest[..., 1]):
            length = row.index(model.config.eos_token_id) + 1 if model.config.eos_token_id in row else len(row)
            found.append((row[:length], margin[:length]))
    return found


def fingerprint(folder):
    """Return what tells the weights apart from others."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def main():
    """Write the golden file."""
    transformers.utils.logging.disable_progress_bar()
    folder = PROJECT / "tiny"
    found = answers(folder, scenes.HELD_OUT_SEEDS[:SCENES])
    arrays = {
        "ids": np.concatenate([ids for ids, _ in found]).astype(np.uint16),
        "lengths": np.array([len(ids) for ids, _ in found], dtype=np.uint8),
        "close": np.array([margin.min() < CLOSE for _, margin in found]),
    }
    about = {"transformers": transformers.__version__, "pillow": PIL.__version__, "weights": fingerprint(folder)}
    save_file(arrays, FILE, {"about": json.dumps(about)})
    size = FILE.stat().st_size / 1e6
    print(f"{len(found)} answers, {arrays['close'].sum()} of them with a close choice, {size:.2f} MB")


if __name__ == "__main__":
    main()
