"""Write only the logits of Hugging Face's PaliGemma, for a diagnosis without hooks.

    python examples/logits_transformers.py DIR --image photo.jpg --prompt "caption en" --out logits.safetensors

The file has ``logits`` (n, V), a row for each token of the answer, and ``token_ids`` (n,), the tokens that were chosen.
Needs torch, transformers and Pillow, nothing of npgemma.
"""

import argparse

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file


@torch.no_grad()
def logits(folder, image, prompt, tokens, dtype="float32"):
    """Answer greedily; return the logits of every token and the tokens."""
    transformers.utils.logging.disable_progress_bar()
    kind, dtype = transformers.PaliGemmaForConditionalGeneration, getattr(torch, dtype)
    model = kind.from_pretrained(folder, dtype=dtype).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    image = Image.open(image).convert("RGB")
    inputs = processor(text="<image>" + prompt, images=image, return_tensors="pt").to(dtype)
    answer = model.generate(
        **inputs, max_new_tokens=tokens, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    chosen = answer.sequences[0, inputs["input_ids"].shape[1] :]
    return {"logits": torch.cat(answer.logits).clone(), "token_ids": chosen.clone()}


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR", help="checkpoint in Hugging Face's layout")
    parser.add_argument("--image", metavar="FILE", required=True)
    parser.add_argument("--prompt", metavar="TEXT", required=True)
    parser.add_argument("--tokens", type=int, default=4, metavar="N", help="of the answer (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float64"), default="float32")
    parser.add_argument("--out", metavar="FILE", required=True, help="safetensors file to write")
    options = parser.parse_args()
    arrays = logits(options.folder, options.image, options.prompt, options.tokens, options.dtype)
    save_file(arrays, options.out, {"prompt": options.prompt, "image": options.image, "dtype": options.dtype})
    print(f"{len(arrays['token_ids'])} tokens and their logits written to {options.out}")


if __name__ == "__main__":
    main()
