"""mistakes/: each is caught, in a trace, where it says, in every backend and family; afterwards it is gone."""

import fnmatch
import functools

import numpy as np
import pytest
from generated import ROOT
from support import GEMMA, GEMMA_2, models
from test_golden import LOGITS, load, load_backend, logits_apart

import npgemma
from npgemma.image import load_image
from npgemma.machinery.sampling import Sampling
from npgemma.porting.bounds import BOUNDS
from npgemma.porting.difference import relative_l2
from npgemma.porting.mistakes import MISTAKES, inject

# Fixed: other programs use them.
IDS = str.split("""
pixels-zero-one pixels-255 pixels-normalised-twice pixels-divided-by-128 pixels-bgr pixels-imagenet-norm resize-bilinear
resize-nearest resize-no-antialias resize-letterbox resize-crop resize-not-to-bytes no-newline no-bos double-bos
patch-rows-columns-swapped patch-weights-bfloat16 no-patch-bias no-vision-biases no-vision-positions
vision-positions-bfloat16 vision-epsilon vision-exact-gelu vision-quick-gelu vision-norms-not-loaded
vision-scores-unscaled no-post-layernorm vision-last-block-missing vision-causal no-projector-bias
image-tokens-not-replaced image-scaled image-divided text-unscaled text-scaled-twice embedding-scale-bfloat16
text-before-image rms-no-plus-one rms-epsilon text-norms-not-loaded norm-in-bfloat16 exact-gelu silu gate-up-swapped
query-scale-head-dim query-scale-missing query-scale-width kv-heads-tiled k-v-swapped no-final-norm head-scaled
rope-interleaved rope-reversed rope-theta rope-frequencies-bfloat16 position-skipped position-repeated
keys-cached-unrotated cache-bfloat16 causal-prefix prompt-causal-image-not padding-visible prefix-chunked
no-attention-softcap no-final-softcap no-post-norms no-sliding-window window-off-by-one window-in-prefix
query-scale-not-from-config locations-1024 locations-x-first padded-vocabulary-wins eos-ignored
top-p-drops-crossing-token patch-kernel-order output-projection-head-order norms-shifted query-heads-order
""")
ONLY_GEMMA_2 = [
    "no-attention-softcap", "no-final-softcap", "no-post-norms", "no-sliding-window", "window-off-by-one",
    "window-in-prefix", "query-scale-not-from-config", "norms-shifted",
]  # fmt: skip
# These need a tokenizer or an image file, and are made outside the decoder and the vision tower.
AROUND = [id for id, mistake in MISTAKES.items() if not any(c in mistake.place for c in "/*")]
AROUND += [id for id in IDS if id.startswith("resize") or id in ("no-newline", "no-bos", "double-bos")]
FORWARD = [(id, variant) for id in IDS if id not in AROUND for variant in range(len(MISTAKES[id].variants))]
CONFIGS = {"gemma": GEMMA["two key/value heads"], "gemma2": GEMMA_2}
CASES = [
    (id, variant, family)
    for id, variant in FORWARD
    for family in CONFIGS
    if family == "gemma2" or id not in ONLY_GEMMA_2
]


def test_the_ids_are_fixed():
    assert list(MISTAKES) == IDS
    assert all(mistake.id == id and mistake.says and mistake.made_by for id, mistake in MISTAKES.items())
    assert [id for id, mistake in MISTAKES.items() if mistake.only_gemma2] == ONLY_GEMMA_2


def answer(model, config):
    """Prefill two rows, one of them padded, and take two given tokens, so that a mistake cannot change them."""
    backend, chosen = model.backend, np.random.default_rng(5)
    size = config.vision.image_size
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, size, size, 3))
    ids, valid = np.random.default_rng(2).integers(4, config.image_token, (2, 9)), np.ones((2, 9), bool)
    valid[1, :3] = False
    image = backend.encode_image(backend.to_activation(pixels), model.params, model.config)

    def choose(logit_BV):
        return backend.to_array(chosen.integers(4, config.image_token, 2))

    rest = backend.to_array(ids), backend.to_array(valid), model.params, model.config, choose, 3
    list(backend.generate(image, *rest))


@functools.cache
def right_trace(backend, family):
    model = models(CONFIGS[family], "float64")[["npgemma", "torch_ref"].index(backend)]
    with npgemma.record() as right:
        answer(model, CONFIGS[family])
    return model, right


@pytest.mark.parametrize("backend", ["npgemma", "torch_ref"])
@pytest.mark.parametrize(("id", "variant", "family"), CASES)
def test_it_shows_where_it_says(id, variant, backend, family):
    mistake = MISTAKES[id]
    model, right = right_trace(backend, family)
    with npgemma.record() as wrong, inject(id, backend, variant):
        answer(model, CONFIGS[family])
    both = [name for name in right if name in wrong]
    # A causal vision tower has a mask, and so one name more; a block that is left out has no arrays.
    assert len(both) >= len(right) - (30 if "missing" in id else 1)
    apart = (name for name in both if relative_l2(right[name], wrong[name]) > 10 * BOUNDS["float64"])
    earlier = []
    for name in apart:
        if fnmatch.fnmatchcase(name, mistake.place):
            # What is calculated from the wrong array is wrong as well; what it is calculated from is right.
            assert all(_calculated_from(name, other) for other in earlier)
            return
        earlier.append(name)
    # Of the variants beside the usual one, some need longer prefixes.
    assert not earlier
    assert variant > 0
    assert mistake.unseen


def _calculated_from(first, name):
    """Say whether an array may be made later although its function returned earlier: a call by the same function."""
    function = first.rpartition("/")[0]
    return name.startswith(function + "/")


@pytest.mark.parametrize("backend", ["npgemma", "torch_ref"])
@pytest.mark.parametrize("id", ONLY_GEMMA_2[:-1])
def test_hugging_faces_logits_catch_those_of_gemma_2(id, backend):
    model = load(load_backend("numpy" if backend == "npgemma" else "torch"), "gemma2_window")
    with inject(id, backend):
        apart = logits_apart(model, "gemma2_window")
    # Twice the bound: a mistake must not hide in its margin.
    assert apart > 2 * LOGITS
    assert logits_apart(model, "gemma2_window") < LOGITS


def test_they_are_gone_after_an_error_too():
    model, right = right_trace("npgemma", "gemma2")
    for id in IDS:
        with pytest.raises(ZeroDivisionError), inject(id):
            raise ZeroDivisionError
    with npgemma.record() as trace:
        answer(model, GEMMA_2)
    assert all(np.array_equal(right[name], array) for name, array in trace.items())


# How far pixels are apart in the mean, where it is not the same image still with most of its pixels other ones.
APART = {"resize-not-to-bytes": (1e-4, 4e-3), "resize-letterbox": (0.1, 2), "resize-crop": (0.1, 2)}
RESIZES = [(id, variant) for id in IDS if id.startswith("resize") for variant in range(len(MISTAKES[id].variants))]


@pytest.mark.parametrize(("id", "variant"), RESIZES)
def test_images_are_resized_otherwise(id, variant):
    wide = ROOT / "tiny" / "gallery" / "wide.png"  # three times as wide as high
    right = load_image(wide, 90).pixels_BYXC
    with inject(id, variant=variant):
        wrong = load_image(wide, 90).pixels_BYXC
    assert wrong.shape == right.shape
    assert wrong.dtype == right.dtype
    least, most = APART.get(id, (1e-3, 0.1))
    assert least < np.abs(wrong - right).mean() < most


def test_without_antialias_a_filter_still_gives_back_a_constant_and_a_slope():
    from PIL import Image

    from npgemma.porting.resizing import cubic, sampled

    slope = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 100, 3))
    small = sampled(cubic, Image.fromarray(slope), (25, 50))
    assert small.shape == (50, 25, 3)
    # Rows 1.5, 5.5, ...: halves of neighbours.
    assert np.abs(small[1:-1, :, 0] - (np.arange(1, 49) * 4 + 1.5)[:, None]).max() < 1e-4


@pytest.mark.parametrize(("id", "change"), [("no-newline", (0, -1)), ("no-bos", (1, None)), ("double-bos", (0, None))])
def test_prompts_are_other_ones(id, change, embedded):
    right = embedded.tokenizer.prompt("detect red circle")
    with inject(id):
        wrong = embedded.tokenizer.prompt("detect red circle")
    assert wrong == ([right[0]] if id == "double-bos" else []) + right[slice(*change)]


@pytest.fixture(scope="module")
def embedded():
    return npgemma.load(npgemma.embedded_checkpoint())


def test_boxes_are_read_otherwise():
    from npgemma.machinery import model

    text = "<loc0000><loc0256><loc0512><loc1023> cat"
    assert model.find_objects(text, (1023, 1023))[0].box == (256, 0, 1023, 512)
    with inject("locations-1024"):
        assert model.find_objects(text, (1024, 1024))[0].box == (256, 0, 1023, 512)
    with inject("locations-x-first"):
        assert model.find_objects(text, (1023, 1023))[0].box == (0, 256, 512, 1023)


def test_rows_that_stand_for_no_token_can_win(embedded):
    logits = np.zeros((1, embedded.config.text.vocabulary), np.float32)
    logits[0, -1], logits[0, 7] = 2, 1
    assert embedded.chooser(Sampling())(logits) == [7]
    with inject("padded-vocabulary-wins"):
        assert embedded.chooser(Sampling())(logits) == [logits.shape[1] - 1]


def test_answers_go_on_after_the_end(embedded):
    right = embedded.generate(npgemma.example_image(), "caption en")
    more = len(right.token_ids) + 3
    with inject("eos-ignored"):
        wrong = embedded.generate(npgemma.example_image(), "caption en", max_new_tokens=more)
    assert right.finish_reason == "stop"
    assert wrong.token_ids[: len(right.token_ids)] == right.token_ids
    assert len(wrong.token_ids) == more


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_top_p_drops_one_token_more(backend):
    model = load_backend(backend).load(npgemma.embedded_checkpoint())
    logits = np.full((1, model.config.text.vocabulary), -100, np.float32)
    logits[0, [5, 3, 8, 9]] = np.log([0.5, 0.3, 0.15, 0.05])

    def drawn():
        choose = model.chooser(Sampling(do_sample=True, top_p=0.7, seed=0))
        return {int(choose(model.backend.to_array(logits))[0]) for _ in range(50)}

    assert drawn() == {5, 3}
    with inject("top-p-drops-crossing-token"):
        assert drawn() == {5}
