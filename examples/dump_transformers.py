"""Write every array that Hugging Face's PaliGemma passes between its modules, under the modules' own names.

    python examples/dump_transformers.py DIR --image photo.jpg --prompt "caption en" --out port.safetensors
    python cli.py compare port.safetensors --map transformers --checkpoint DIR --image photo.jpg --prompt "caption en"

What a module returns has the module's name (``model.vision_tower.post_layernorm``); what goes into it has ``.in`` after
the name (``.in.position_ids`` if it is given by name); further results are counted (``self_attn.1``: the attention
weights). Functions that are no modules, such as the rotation, are written under the module that calls them. In front
stands the pass: ``prefill.0/``, then ``step.0/`` and so on. Needs torch, transformers and Pillow, nothing of npgemma.
"""

import argparse
import contextlib
import inspect
import sys

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

# Functions of transformers' modeling files that are worth looking into.
FUNCTIONS = ("apply_rotary_pos_emb", "eager_attention_forward")


class Dump:
    """Hooks on every module of a model; ``arrays`` grows while the model runs."""

    def __init__(self, model):
        self.arrays, self.calls, self.path = {}, 0, []
        for name, module in model.named_modules():
            module.register_forward_pre_hook(self._enter(name), with_kwargs=True)
            module.register_forward_hook(self._leave(name))

    @contextlib.contextmanager
    def functions(self, model):
        """Look into functions, too, as long as this context lasts."""
        sources = {sys.modules[type(module).__module__] for module in model.modules()}
        held = [(file, name, getattr(file, name)) for file in sources for name in FUNCTIONS if hasattr(file, name)]
        for file, name, function in held:
            setattr(file, name, self._watched(name, function))
        try:
            yield
        finally:
            for file, name, function in held:
                setattr(file, name, function)

    def keep(self, name, value):
        """Keep a tensor, or the tensors in a tuple."""
        if isinstance(value, (tuple, list)):
            for i, each in enumerate(value):
                self.keep(f"{name}.{i}" if i else name, each)
        elif isinstance(value, torch.Tensor):
            which = f"step.{self.calls - 2}" if self.calls > 1 else "prefill.0"
            self.arrays.setdefault(f"{which}/{name}", value.detach().cpu().clone().contiguous())

    def _enter(self, name):
        def hook(module, arguments, named):
            self.calls += name == ""
            self.path.append(name)
            self.keep(f"{name}.in", arguments)
            for word, value in named.items():
                self.keep(f"{name}.in.{word}", value)

        return hook

    def _leave(self, name):
        def hook(module, arguments, result):
            self.path.pop()
            self.keep(name, result)
            self.keep(f"{name}.logits".lstrip("."), getattr(result, "logits", None))

        return hook

    def _watched(self, name, function):
        def watched(*arguments, **named):
            place, values = f"{self.path[-1]}.{name}", inspect.signature(function).bind(*arguments, **named).arguments
            for word, value in values.items():
                self.keep(f"{place}.in.{word}", value)
            result = function(*arguments, **named)
            self.keep(place, result)
            return result

        return watched


def load(folder, dtype):
    """Return a checkpoint's model; attention is ``eager`` because other kernels never have the weights in memory."""
    transformers.utils.logging.disable_progress_bar()
    kind = transformers.PaliGemmaForConditionalGeneration
    return kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()


def inputs_of(folder, image, prompt, dtype):
    """Return what Hugging Face's own processor makes of an image and a prompt."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    inputs = processor(text="<image>" + prompt, images=Image.open(image).convert("RGB"), return_tensors="pt")
    return inputs.to(getattr(torch, dtype))


@torch.no_grad()
def run(model, inputs, tokens):
    """Answer greedily and return every array, and the tokens of the answer as ``token_ids``."""
    dump = Dump(model)
    with dump.functions(model):
        answer = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    chosen = answer[0, inputs["input_ids"].shape[1] :]
    return dump.arrays | {"token_ids": chosen.clone()}


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR", help="checkpoint in Hugging Face's layout")
    parser.add_argument("--image", metavar="FILE", required=True)
    parser.add_argument("--prompt", metavar="TEXT", required=True)
    parser.add_argument("--tokens", type=int, default=4, metavar="N", help="of the answer (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16", "float64"), default="float32")
    parser.add_argument("--out", metavar="FILE", required=True, help="safetensors file to write")
    options = parser.parse_args()
    model = load(options.folder, options.dtype)
    arrays = run(model, inputs_of(options.folder, options.image, options.prompt, options.dtype), options.tokens)
    save_file(arrays, options.out, {"prompt": options.prompt, "image": options.image, "dtype": options.dtype})
    print(f"{len(arrays)} arrays written to {options.out}")


if __name__ == "__main__":
    main()
