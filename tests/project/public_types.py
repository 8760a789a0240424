"""A user's program, which mypy reads and nobody runs: what public functions and classes take and return is typed."""

import pathlib

import numpy as np

import conversion
import npgemma
import torch_ref
from conversion.codebook import read_codebook
from npgemma import answer, attention, axes, config, image, ops, rope, tokenizer


def main(folder: pathlib.Path, file: str) -> None:
    """Answer, record and read, as README and docs do."""
    model: npgemma.Model = npgemma.load(folder, dtype="bfloat16", base=folder, tokenizer="tokenizer.model")
    twin: npgemma.Model = torch_ref.load(device="cuda", static=True)
    generations: list[npgemma.Generation] = twin.generate_batch([file, folder], ["ocr", "caption en"], seed=1)
    text: str = model.generate(npgemma.example_image(), "detect cat", top_k=npgemma.Sampling().top_k).text
    generations[0].draw(npgemma.example_image()).save(file)
    told: dict[str, object] = generations[0].to_dict(file) | {"score": model.score(file, "ocr", [text])[0].sum()}
    with npgemma.record("*/q_BTNH", watch=None) as trace:
        pixels: np.ndarray = image.load_pixels(file, model.config.vision.image_size)
        model.logits(pixels, [model.tokenizer.prompt("ocr")], 3)
    array: np.ndarray = trace["q_BTNH"]
    seen: image.LoadedImage = image.load_image(array, 224, image.Preprocessing(resample=2))
    found: list[answer.Detection] = answer.find_objects(text, seen.size, read_codebook(folder / "vae-oid.npz"))
    box: tuple[float, float, float, float] = found[0].box
    letters: str | None = axes.suffix("q_BTNH")
    sizes: dict[str, dict[str, int]] = axes.sizes(config.PUBLISHED["paligemma-3b-224"])
    ids: list[int] = tokenizer.open_tokenizer(folder, sizes["text"]["V"]).encode("cat")
    params, sizes_of = conversion.read_folder(conversion.Source.of(folder))
    width: int = sizes_of.vision.head_width
    ops.einsum("BTD,DF->BTF", array, params.vision.blocks[0].mlp.up)
    attention.attend(*rope.rotate(array, 1), array)
    raise npgemma.InputError(f"{told} {box} {letters} {ids} {width} {generations[0].finish_reason} {axes.AXES['B']}")
