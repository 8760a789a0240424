"""measured.py: what the checkpoint tests are built on sees what it should."""

import measured
import numpy as np
import pytest
from support import CONFIGS

import conversion
import npgemma
from npgemma.config import PUBLISHED
from npgemma.porting.difference import relative_l2


@pytest.fixture
def both(random_folder):
    return measured.Measured(random_folder, "float32")


def test_the_photo_is_the_same_every_time_and_has_all_sizes_of_detail():
    image, again = (np.asarray(measured.photo()).astype(float) for _ in range(2))
    assert np.array_equal(image, again)
    # The drawn example is flat nearly everywhere; a photo is nowhere, but neighbours are alike.
    steps = np.abs(np.diff(image, axis=1)).mean(axis=-1)
    assert (steps > 0).mean() > 0.9
    assert np.median(steps) < image.std() / 4


def test_each_image_and_each_prompt_is_asked_of_models_that_take_long():
    asked = measured.PAIRS[: measured.affordable_pairs(30)]
    assert {image for image, _ in asked} == set(measured.IMAGES)
    assert {prompt for _, prompt in asked} == set(measured.PROMPTS)
    assert len(set(measured.PAIRS)) == len(measured.IMAGES) * len(measured.PROMPTS)
    assert {measured.SHORT, measured.LONG} <= set(asked)


def test_forced_tokens_are_what_follows_is_calculated_from(both):
    pixels, model = both.pixels["photo"], both.port
    free = measured.Choosing(model)
    free.model.generate(pixels, "caption en", max_new_tokens=3)
    other = [(free.choices[0][0] + 1) % 100 + 4, 5, 6]
    forced = measured.Choosing(model, other)
    answer = forced.model.generate(pixels, "caption en", max_new_tokens=3)
    assert answer.token_ids == other
    assert forced.choices[0] == free.choices[0]
    ids = [*model.tokenizer.prompt("caption en"), *other[:-1]]
    expected = model.logits(pixels, [ids], len(ids) - 2)[0, -3:, : model.tokenizer.size]
    assert relative_l2(expected, np.concatenate(forced.logits)) < 1e-6


def test_a_mistake_in_the_twin_is_found_at_every_image_and_prompt(both, monkeypatch):
    monkeypatch.setattr("torch_ref.gemma.gelu", lambda x: x)
    for pair in measured.PAIRS[:3]:
        report = both.answer(*pair).report
        assert report["first_past_bound"].startswith("prefill.0/run_blocks.0/block.0/geglu.0/"), pair


def test_a_cache_that_forgets_is_found_in_one_pass(both, monkeypatch):
    pairs = [measured.SHORT, measured.LONG]

    def far(backend):
        """Return how far each row of one pass is from the steps."""
        rows = both.one_pass(pairs, backend)
        return [relative_l2(both.answer(*pair).logits[backend], row) for pair, row in zip(pairs, rows)]

    assert max(far("numpy") + far("torch")) < 1e-5
    monkeypatch.setattr("npgemma.gemma.positions", lambda valid_BS, new: np.zeros((len(valid_BS), new)))
    assert min(far("numpy")) > 1e-3


def test_a_row_alone_is_padded_to_the_longer_prompt(both):
    [padded], [alone, _] = (
        both.one_pass([measured.SHORT], "numpy"),
        both.one_pass([measured.SHORT, measured.LONG], "numpy"),
    )
    assert relative_l2(alone, padded) < 1e-6
    with npgemma.record(only="logits.0/valid_BT") as trace:
        both.one_pass([measured.SHORT], "numpy")
    valid_BT = trace["logits.0/valid_BT"]
    tokenizer = both.port.tokenizer
    short, long = (len(tokenizer.prompt(prompt)) for _, prompt in (measured.SHORT, measured.LONG))
    assert (~valid_BT[0]).sum() == long - short > 0


def test_float64_reads_the_weights_of_every_block(random_folder):
    config = CONFIGS["two key/value heads"]
    blocks = measured.fitting_blocks(config, None)
    assert blocks == {"vision": config.vision.layers, "text": config.text.layers}
    report = measured.float64(random_folder, *measured.SHORT, blocks)
    assert report["passed"]
    assert {place["place"].rpartition("/")[2] for place in report["places"]} >= {"block.0", "block.1", "block.2"}
    fewer = measured.float64(random_folder, *measured.SHORT, {"vision": 1, "text": 2})
    assert fewer["passed"]
    assert 0 < fewer["arrays"] < report["arrays"]


def test_float64_compares_with_what_the_weights_are_and_not_with_itself(random_folder, monkeypatch):
    monkeypatch.setattr("torch_ref.gemma.rms_norm", lambda x, scale, epsilon: x)
    report = measured.float64(random_folder, *measured.SHORT, {"vision": 1, "text": 1})
    assert report["first_past_bound"].startswith("prefill.0/run_blocks.0/block.0/")


def test_fewer_blocks_are_taken_where_memory_is_short():
    config = PUBLISHED["paligemma-3b-224"]
    counts = [measured.fitting_blocks(config, free) for free in (1e9, 12e9, 40e9)]
    assert counts[0] == {"vision": 0, "text": 0}
    assert 0 < counts[1]["text"] < counts[2]["text"] == 18
    assert 0 < counts[1]["vision"] < counts[2]["vision"] == 27


def test_the_memory_needed_is_about_that_of_weights_and_trace(random_folder):
    config = CONFIGS["two key/value heads"]
    params, _ = conversion.read_folder(random_folder)
    blocks = sum(leaf.size for name, _, leaf in npgemma.params.leaves(params) if ".blocks." in name)
    sizes = measured.block_sizes(config)
    assert blocks == pytest.approx(2 * sizes["vision"] + 3 * sizes["text"], rel=0.1)
