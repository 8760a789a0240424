"""Files that ``generate`` writes about an answer: boxes and masks on the image, masks, what the model looked at."""

import sys

from npgemma.answer import MASK_TOKENS, mask_lengths
from npgemma.command import prepare, views
from npgemma.command.annotate import annotate, font_size
from npgemma.command.fonts import note_missing
from npgemma.command.image_files import drawn_name, save_image, write_masks
from npgemma.machinery.model import without_marks


def write_drawn(options, names, question, answer, passes, model):
    """Write the images about an answer that the options ask for, or note why there are none; return their paths."""
    written = []

    def save(field, image):
        path = getattr(options, field)
        if path is True:
            path = names.free(options.out_dir, drawn_name(question.file, views.KINDS[field]))
        save_image(image, path)
        written.append(path)

    if options.image_as_seen:
        seen, patch = views.seen_image(question.image, model), model.config.vision.patch_size
        save("image_as_seen", views.for_looking(seen, options.scale, patch, options.grid))
    if options.annotate and answer.objects:
        image = prepare.original(question.path, options)
        drawn = annotate(image, answer.objects, options.font)
        save("annotate", drawn)
        if drawn.size != image.size:
            told = (
                f"drawn {drawn.width // image.width} times as large; the answer's boxes are in the image's own pixels"
            )
            print(f"note: {question.label}{told}", file=sys.stderr)
        note_missing((detection.label for detection in answer.objects), font_size(image.size), options.font)
    elif options.annotate:
        why = f"the answer names no box, so no image was written{_hint(question, 'detect')}"
        print(f"note: {question.label}{why}", file=sys.stderr)
    if options.mask_dir:
        folder = options.out_dir if options.mask_dir is True else options.mask_dir
        masks = write_masks(folder, question.file, answer.objects, names.free)
        written += masks
        if not masks:
            print(f"note: {question.label}{_why_no_mask(question, answer, model)}", file=sys.stderr)
    if options.show_attention:
        save("show_attention", views.attention_sheet_of(question, answer, passes, model))
    return written


def _hint(question, task):
    """Return what to ask instead, unless just that was asked."""
    return "" if without_marks(question.prompt).startswith((task, "segment")) else f": ask '{task} ...'"


def _why_no_mask(question, answer, model):
    """Say why an answer has no mask that could be written."""
    from conversion.codebook import FILE

    lengths = mask_lengths(answer.text)
    if not lengths:
        return f"the answer has no mask, so none was written{_hint(question, 'segment')}"
    if MASK_TOKENS not in lengths:
        cut = answer.finish_reason == "length"
        reason = "the answer was cut off: raise --max-new-tokens" if cut else f"a mask takes {MASK_TOKENS}"
        return f"the answer has {lengths[-1]} of the {MASK_TOKENS} tokens of a mask, so none was written; {reason}"
    if model.mask_params is None:
        return f"the answer has a mask that cannot be decoded: the checkpoint's folder has no {FILE}"
    return "the answer has a mask without a box, or with codes that are not in the codebook, so none was written"
