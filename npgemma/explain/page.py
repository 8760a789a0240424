"""All parts of the page, collected.

Each part is made by a function of the inference. It returns what the page's script reads as JSON, puts arrays into the
block of `npgemma.explain.packing.Pack`, and adds the tokens that it mentions to `npgemma.explain.token_names.Names`.
"""

import numpy as np

import npgemma
from npgemma.axes import AXES, suffix
from npgemma.explain import ablation, attention_maps, attention_mask, kv_cache, lens, seen_image, sources, twin_check
from npgemma.explain.bundle import bundle
from npgemma.explain.choices import choices
from npgemma.explain.detections import detections
from npgemma.explain.diagram import links
from npgemma.explain.inference import infer
from npgemma.explain.knockouts import knockouts
from npgemma.explain.learning import learning
from npgemma.explain.mask_stages import stages
from npgemma.explain.packing import Pack
from npgemma.explain.thumbnails import PALETTE
from npgemma.explain.token_names import Names
from npgemma.explain.worked import worked


def build(model, image, original, prompt, settings, twin=None, note=lambda what: None):
    """Return the page about one inference.

    Parameters
    ----------
    model : npgemma.Model
    image : npgemma.image.LoadedImage
    original : PIL.Image.Image
        The image as a person sees it.
    prompt : str
    settings : dict
        The keywords of `npgemma.Model.generate`.
    twin : npgemma.Model, optional
        The same weights on the other backend, to compare with.
    note : callable
        Called as ``note(what)`` before each part of the work.

    Returns
    -------
    str
        HTML.
    """
    note("answering")
    inference = infer(model, image, prompt, settings)
    pack, names = Pack(), Names(model.tokenizer)
    facts = _question(inference, names, pack) | {"image": seen_image.image(inference, original, pack)}
    facts["mask"] = attention_mask.mask(inference.recording.whole, pack)
    facts["attention"] = attention_maps.attention(inference, pack)
    found = detections(inference, names, pack)
    note("applying the logit lens")
    facts["lens"] = lens.lens(inference, names, pack)
    facts["worked"] = worked(inference, found, names, pack)
    note("hiding patches")
    facts["knockouts"] = knockouts(inference, found, pack)
    for detection in found:
        detection["stages"] = stages(detection["codes"], model.mask_params, pack)
        del detection["shares"]
    facts["objects"] = found
    facts["causal"] = causal = ablation.causal(inference, names, pack)
    facts["mistakes"] = ablation.answers(inference, names, causal, lambda id: note(f"making the mistake {id}"))
    facts["cache"] = kv_cache.cache(inference, pack)
    note("running backwards")
    facts["learning"] = learning(inference, pack)
    note("comparing the backends")
    facts["parity"] = twin_check.parity(inference, twin)
    facts["functions"] = sources.functions(inference.recording.calls)
    facts["arrays"] = _arrays(inference.recording.summaries, pack)
    facts["names"] = names.names
    return bundle(facts, pack.text(), links(inference))


def _question(inference, names, pack):
    """Return what was asked and answered, and the sizes of the model."""
    model, answer, config = inference.model, inference.answer, inference.model.config
    return {
        "version": npgemma.__version__,
        "prompt": inference.prompt,
        "text": answer.text,
        "finish": answer.finish_reason,
        "prompt_ids": names.add(inference.prompt_ids),
        "answer": names.add(answer.token_ids),
        "choice": choices(inference, names, pack),
        "patches": inference.patches,
        "layers": inference.layers,
        "heads": config.text.query_heads,
        "channels": config.text.mlp_width,
        "key_value_heads": config.text.key_value_heads,
        "has_masks": model.mask_params is not None,
        "axes": AXES,
        "parts": list(attention_maps.PARTS.values()),
        "palette": PALETTE,
    }


def _arrays(summaries, pack):
    """Return the numbers and thumbnails of all arrays."""
    arrays = summaries.values()
    return {
        "names": list(summaries),
        "axes": [suffix(name.rpartition("/")[2]) for name in summaries],
        "shapes": [list(array.shape) for array in arrays],
        "dtypes": [array.dtype for array in arrays],
        "numbers": pack.add(np.array([(array.smallest, array.mean, array.largest) for array in arrays])),
        "thumbnails": [pack.add(array.thumbnail) for array in arrays],
    }
