"""All parts of the page, collected."""

import numpy as np

import npgemma
from npgemma.axes import AXES, suffix
from npgemma.explain import ablation, attention_maps, kv_cache, lens, mask_stages, seen_image, sources, twin_check
from npgemma.explain.bundle import bundle
from npgemma.explain.inference import infer
from npgemma.explain.knockouts import knockouts
from npgemma.explain.packing import Pack
from npgemma.explain.probabilities import Names, best, choices

# Tokens of a choice that the page can name; those behind are told by their ids.
NAMED = 300


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
    facts["mask"] = attention_maps.mask(inference, inference.recording.whole, pack)
    facts["attention"] = attention_maps.attention(inference, pack)
    detections = attention_maps.objects(inference, names, pack)
    note("looking through the lens")
    facts["lens"] = lens.lens(inference, names, pack)
    note("hiding patches")
    facts["knockouts"] = knockouts(inference, detections, pack)
    for detection, stages in zip(detections, mask_stages.stages(inference, detections, pack)):
        detection["stages"] = stages
        del detection["shares"]
    facts["objects"] = detections
    facts["causal"] = causal = ablation.causal(inference, names, pack)
    facts["mistakes"] = ablation.answers(inference, names, causal, lambda id: note(f"making the mistake {id}"))
    facts["cache"] = kv_cache.cache(inference, pack)
    note("comparing the backends")
    facts["parity"] = twin_check.parity(inference, twin)
    facts["functions"] = sources.functions(inference.recording.calls)
    facts["arrays"] = _arrays(inference.recording.seen, pack)
    facts["names"] = names.names
    return bundle(facts, pack.text())


def _question(inference, names, pack):
    """Return what was asked and answered, and the sizes of the model."""
    model, answer = inference.model, inference.answer
    choice = choices(inference, pack)
    names.add([i for token in range(len(answer.token_ids)) for i in _listed(inference, token)])
    config = model.config
    return {
        "version": npgemma.__version__,
        "prompt": inference.prompt,
        "text": answer.text,
        "finish": answer.finish_reason,
        "prompt_ids": names.add(inference.prompt_ids),
        "answer": names.add(answer.token_ids),
        "choice": choice,
        "backend": model.backend.name,
        "dtype": model.backend.dtype,
        "patches": inference.patches,
        "layers": inference.layers,
        "heads": config.text.query_heads,
        "key_value_heads": config.text.key_value_heads,
        "eos": list(config.eos_tokens),
        "has_masks": model.mask_params is not None,
        "axes": AXES,
    }


def _listed(inference, token):
    """Return the tokens of a choice that the page may name."""
    return best(inference.logits(token), NAMED)


def _arrays(seen, pack):
    """Return the numbers and thumbnails of all arrays."""
    numbers = [(array.smallest, array.mean, array.largest) for array in seen.values()]
    return {
        "names": list(seen),
        "axes": [suffix(name.rpartition("/")[2]) for name in seen],
        "shapes": [list(array.shape) for array in seen.values()],
        "dtypes": [array.dtype for array in seen.values()],
        "numbers": pack.add(np.array(numbers, dtype=np.float64)),
        "thumbnails": [pack.add(array.thumbnail) for array in seen.values()],
    }
