"""Ablation: the answers that the model gives under known mistakes."""

from npgemma import record
from npgemma.errors import InputError
from npgemma.explain.attention_mask import MASKS, mask
from npgemma.explain.sources import changed
from npgemma.porting.mistakes import MISTAKES, inject

CAUSAL = "causal-prefix"
SHOWN = (
    "no-vision-positions",
    "patch-rows-columns-swapped",
    "image-scaled",
    "no-newline",
    "rms-no-plus-one",
    "rope-reversed",
    "query-scale-missing",
    CAUSAL,
    "position-repeated",
)


def answers(inference, names, causal, note):
    """Return the answer under each mistake in `SHOWN`.

    ``causal`` is what the function of this name has returned, so that it need not run again; ``note(id)`` is called
    before each mistake is made.
    """
    shown = []
    for id in SHOWN:
        note(id)
        mistake = MISTAKES[id]
        if id == CAUSAL:
            answer = {key: value for key, value in causal.items() if key != "mask"}
        else:
            with inject(id, inference.package):
                answer = _answer(inference, names)
        shown.append({"id": id, "says": mistake.says, "made_by": mistake.made_by} | answer)
    return shown


def _answer(inference, names):
    """Return the answer of the model as it is now: text, tokens and boxes; or why there is none."""
    try:
        answer = inference.model.generate(inference.image, inference.prompt, **inference.settings)
    except InputError as problem:
        return {"failed": str(problem), "text": "", "ids": [], "changed": [], "boxes": [], "same": False}
    return {
        "failed": None,
        "text": answer.text,
        "ids": names.add(answer.token_ids),
        "changed": changed(answer.token_ids, inference.answer.token_ids)[0],
        "boxes": [{"label": detection.label, "box": list(detection.box)} for detection in answer.objects],
        "same": answer.token_ids == inference.answer.token_ids,
    }


def causal(inference, names, pack):
    """Return mask and answer of the model under a causal mask."""
    with inject(CAUSAL, inference.package), record(only=MASKS) as arrays:
        answer = _answer(inference, names)
    return answer | {"mask": mask(arrays, pack) if arrays else None}
