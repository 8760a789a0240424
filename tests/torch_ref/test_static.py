"""torch_ref/static.py: steps of one shape give what growing ones give, and can be replayed."""

import shutil

import numpy as np
import pytest
import torch
from support import CONFIGS, on_torch
from torch.fx.experimental.proxy_tensor import make_fx

import conversion
import npgemma
import torch_ref
from torch_ref import generate, paligemma, static

CONFIG = None
PROMPTS = ["caption en", "detect red circle ; blue square", "ocr"]


@pytest.fixture(autouse=True, params=["two key/value heads", "Gemma 2"])
def family(request, monkeypatch):
    """Every test for both decoders."""
    monkeypatch.setitem(globals(), "CONFIG", CONFIGS[request.param])


def twins(dtype="float64"):
    """Return both ways to decode, on the same random weights."""
    params = torch_ref.backend.to_torch(conversion.random_params(CONFIG, 0), dtype)
    return [on_torch(params, CONFIG, dtype, static=fixed) for fixed in (False, True)]


def inputs(model, rows=3):
    """Return an image and prompts for each row, the last one padded."""
    randomness, size = np.random.default_rng(1), CONFIG.vision.image_size
    pixels_BYXC = model.backend.to_activation(randomness.uniform(-1, 1, (rows, size, size, 3)))
    ids_BT = model.backend.to_array(randomness.integers(4, 60, (rows, 5)))
    valid_BT = model.backend.to_array(np.array([[True] * 5] * (rows - 1) + [[False] * 2 + [True] * 3]))
    return paligemma.encode_image(pixels_BYXC, model.params, CONFIG), ids_BT, valid_BT, model.params, CONFIG


def every_step(model, steps=6):
    """Return the logits of prefill and of some steps after it."""
    image_BPD, ids_BT, valid_BT, params, config = inputs(model)
    cache = model.backend.make_cache(config.text, len(ids_BT), image_BPD.shape[1] + 5 + steps, image_BPD)
    found = [model.backend.prefill(image_BPD, ids_BT, valid_BT, params, config, cache)]
    valid_BS = paligemma.with_image(valid_BT, image_BPD)
    for step in range(steps):
        # One row ends on the way: from then on its tokens are padding.
        running_B = model.backend.to_array(np.array([True, step < 3, True]))
        valid_BS = torch.cat([valid_BS, running_B[:, None]], dim=1)
        found.append(model.backend.step(found[-1].argmax(-1)[:, None], valid_BS, params, config, cache).clone())
    return torch.stack(found), cache


@torch.inference_mode()
def test_every_step_scores_alike():
    (plain, _), (fixed, cache) = map(every_step, twins())
    # Row 1 ends after three steps; what is scored after padding is never read.
    plain[4:, 1] = fixed[4:, 1] = 0
    # The order of sums differs; largest seen 1.8e-15.
    torch.testing.assert_close(fixed, plain, rtol=0, atol=1e-14)
    assert cache.length == cache.k_LBSKH.shape[2]


@torch.inference_mode()
def test_answers_are_the_same_also_when_drawn():
    for choose in (generate.greedy, lambda logit_BV: generate.sample(logit_BV, torch.tensor([0.2, 0.6, 0.9]), top_k=9)):
        plain, fixed = (
            [id_B.tolist() for id_B in model.backend.generate(*inputs(model), choose, 12)] for model in twins()
        )
        assert plain == fixed
        assert len(plain) > 3


@torch.inference_mode()
def test_a_step_that_was_recorded_once_can_be_replayed():
    """What a CUDA graph does, by other means: the operations of one step, recorded, serve for all others.

    A recording keeps no Python: whatever else differed from step to step would be stuck at the recorded step's value.
    """
    plain, fixed = twins()
    image_BPD, ids_BT, valid_BT, params, config = inputs(fixed)
    capacity = image_BPD.shape[1] + 5 + 6
    cache = static.KVCache(config.text, len(ids_BT), capacity, image_BPD)

    class Recording:
        def __init__(self):
            # The recording would write over the cache; what it writes is taken from copies.
            self.run = make_fx(lambda *memory: static.one_shape(*memory, params, config))(*self.memory())

        def memory(self):
            *told, k_LBSKH, v_LBSKH = cache.memory()
            return *told, k_LBSKH.clone(), v_LBSKH.clone()

        def replay(self):
            memory = self.memory()
            cache.logit_BV = self.run(*memory)
            cache.k_LBSKH, cache.v_LBSKH = memory[3:]

    found = [paligemma.prefill(image_BPD, ids_BT, valid_BT, params, config, cache)]
    cache.graph = Recording()
    valid_BS = paligemma.with_image(valid_BT, image_BPD)
    expected, _ = every_step(plain, 6)
    for step in range(6):
        valid_BS = torch.cat([valid_BS, torch.tensor([True, step < 3, True])[:, None]], dim=1)
        found.append(static.step(found[-1].argmax(-1)[:, None], valid_BS, params, config, cache))
    found = torch.stack(found)
    found[4:, 1] = expected[4:, 1] = 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def steps_of(run, lengths):
    """Return the logits of a step at several fill levels of caches of several lengths, and what it stored."""
    _, fixed = twins()
    image_BPD, _, _, params, config = inputs(fixed)
    randomness, found = torch.Generator().manual_seed(2), []
    for capacity, filled in lengths:
        cache = static.KVCache(config.text, 3, capacity, image_BPD)
        cache.k_LBSKH.normal_(generator=randomness)
        cache.v_LBSKH.normal_(generator=randomness)
        cache.ids_BT.random_(4, 60, generator=randomness)
        cache.valid_BS[:, :filled] = cache.valid_BS[:, -1] = True
        cache.filled.fill_(filled)
        logit_BV = run(params, config, cache)
        found.append((logit_BV, cache.k_LBSKH, cache.v_LBSKH))
    return found


def compare_steps(run, monkeypatch, backend):
    """Compare compiled steps with plain ones; return how many were compiled."""
    compiled = static.compiled.__wrapped__(backend)
    monkeypatch.setattr(static, "compiled", lambda: compiled)
    lengths = [(9, 5), (9, 8), (14, 11), (30, 3)]
    plain = steps_of(lambda params, config, cache: static.one_shape(*cache.memory(), params, config), lengths)
    torch._dynamo.utils.counters.clear()
    # Sums in another order; largest seen 2.0e-15, with inductor.
    torch.testing.assert_close(steps_of(run, lengths), plain, rtol=0, atol=1e-14)
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def taken_twice(params, config, cache):
    """Take a step as a capture does: once to find out what is fastest, then once more, which changes nothing."""
    run = static.fastest(params, config, cache)
    assert run is static.compiled()
    return run(*cache.memory(), params, config)


@pytest.mark.slow
@torch.inference_mode()
def test_a_compiled_step_scores_alike_and_serves_answers_of_every_length(monkeypatch):
    """Traced and made functional as for CUDA; what torch makes of it there needs a compiler, and a test of its own."""
    assert compare_steps(taken_twice, monkeypatch, "aot_eager") == 1


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
@torch.inference_mode()
def test_a_step_compiled_for_the_processor_scores_alike(monkeypatch):
    assert compare_steps(taken_twice, monkeypatch, "inductor") == 1


@pytest.mark.slow
@torch.inference_mode()
def test_where_torch_cannot_compile_a_step_is_taken_all_the_same(monkeypatch):
    def broken(graph, example_inputs):
        raise RuntimeError("Failed to find C compiler")

    compiled = static.compiled.__wrapped__(broken)
    monkeypatch.setattr(static, "compiled", lambda: compiled)

    def plain(params, config, cache):
        return static.one_shape(*cache.memory(), params, config)

    def fallen_back(params, config, cache):
        assert static.fastest(params, config, cache) is static.one_shape
        return plain(params, config, cache)

    with pytest.warns(UserWarning, match="cannot compile here.*Failed to find C compiler"):
        found = steps_of(fallen_back, [(9, 5)])
    torch.testing.assert_close(found, steps_of(plain, [(9, 5)]), rtol=0, atol=0)


def test_the_embedded_model_answers_alike():
    plain, fixed = torch_ref.load(), torch_ref.load(static=True)
    image = npgemma.example_image()
    expected, found = (model.generate_batch([image], PROMPTS) for model in (plain, fixed))
    assert [answer.text for answer in found] == [answer.text for answer in expected]


@torch.inference_mode()
def test_a_step_needs_nothing_of_the_processor():
    """On torch's device of shapes alone, to which the CPU is another device, as it is to CUDA."""
    params = torch_ref.backend.to_torch(conversion.random_params(CONFIG, 0), "bfloat16", "meta")
    for fixed in (False, True):
        logit_NBV, _ = every_step(on_torch(params, CONFIG, "bfloat16", "meta", fixed))
        assert logit_NBV.shape == (7, 3, CONFIG.text.vocabulary)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.inference_mode()
def test_a_captured_graph_scores_alike(dtype):
    params = torch_ref.backend.to_torch(conversion.random_params(CONFIG, 0), dtype, "cuda")
    models = [on_torch(params, CONFIG, dtype, "cuda", fixed) for fixed in (False, True)]
    (plain, _), (fixed, cache) = map(every_step, models)
    assert cache.graph
    plain[4:, 1] = fixed[4:, 1] = 0
    bound = npgemma.porting.bounds.BOUNDS[dtype] * npgemma.porting.bounds.DEVICE_FACTOR["cuda"]
    assert (fixed - plain).norm() <= bound * plain.norm()


def test_recording_refuses_aloud():
    _, fixed = twins("float32")
    with torch.inference_mode(), pytest.raises(npgemma.InputError, match="without static"), npgemma.record():
        every_step(fixed)
