"""Head and table that are stored in other ways than the hub's, and the end tokens of generation_config.json."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from support import CONFIGS, rewrite

import conversion
import npgemma
from conversion.write import FILE_DTYPES as WORDS
from conversion.write import cast
from npgemma.errors import InputError
from npgemma.fast.bfloat16 import narrow, widen
from npgemma.tokenizer import Tokenizer

CONFIG = CONFIGS["two key/value heads"]
TABLE = "language_model.model.embed_tokens.weight"


@pytest.fixture
def saved(tmp_path):
    """Five rows more than the tokenizer has tokens."""
    shutil.copy(npgemma.embedded_checkpoint() / "tokenizer.model", tmp_path)
    rows = Tokenizer(tmp_path / "tokenizer.model").size + 5
    config = dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, vocabulary=rows))
    conversion.save(tmp_path, conversion.random_params(config, 0), config)
    return tmp_path


def store(folder, table=None, head=None, spoil=None):
    """Store the table and the head in these dtypes, or one of them alone; ``spoil`` is a row that differs."""

    def change(name, dtype, array):
        if name != TABLE:
            return [(name, dtype, array)]
        # Writers make the head from the table as it is stored, or the reverse.
        other = rounded(array, table) if table else array.copy()
        if spoil is not None:
            other[spoil] += 1
        both = [(TABLE, table, array), ("lm_head.weight", head, other)]
        return [(n, WORDS[d], cast(a, d)) for n, d, a in both if d]

    rewrite(folder, change)


def rounded(array, dtype):
    return widen(narrow(array)) if dtype == "bfloat16" else array.astype(dtype).astype(np.float32)


def embedding(folder):
    return np.array(conversion.read_folder(folder)[0].text.embedding)


def test_a_head_alone_is_the_table(saved):
    expected = embedding(saved)
    store(saved, head="float32")
    assert np.array_equal(embedding(saved), expected)


@pytest.mark.parametrize("table", WORDS)
@pytest.mark.parametrize("head", WORDS)
def test_both_are_compared_in_the_narrower_dtype(saved, table, head):
    store(saved, table, head)
    assert embedding(saved).shape[0] == Tokenizer(saved / "tokenizer.model").size + 5


@pytest.mark.parametrize("head", WORDS)
def test_an_untied_head_is_refused(saved, head):
    size = Tokenizer(saved / "tokenizer.model").size
    store(saved, "bfloat16", head, spoil=size - 1)
    with pytest.raises(InputError, match="untied output head"):
        conversion.read_folder(saved)


def test_two_float64_tables_are_compared_as_they_are(saved):
    def change(name, dtype, array):
        head = [("lm_head.weight", "F64", array * np.float64(1 + 1e-12))] if name == TABLE else []
        return [(name, "F64", array.astype(np.float64)), *head]

    rewrite(saved, change)
    with pytest.raises(InputError, match="untied output head"):
        embedding(saved)


def test_rows_past_the_tokenizer_do_not_count_unless_there_is_none(saved):
    store(saved, "float32", "bfloat16", spoil=-1)
    embedding(saved)
    (saved / "tokenizer.model").unlink()
    with pytest.raises(InputError, match="untied output head"):
        conversion.read_folder(saved)


def test_a_config_that_denies_the_tie_is_believed_only_if_the_weights_say_so(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    path.write_text(json.dumps(config))
    expected = embedding(saved)
    store(saved, "float32", "float32")
    assert np.array_equal(embedding(saved), expected)


@pytest.mark.parametrize(("own", "expected"), [([7, 9], (7, 9, 1)), (7, (7, 1)), (None, (1,)), ([1, 7], (1, 7))])
def test_end_tokens_of_generation_config(saved, own, expected):
    (saved / "generation_config.json").write_text(json.dumps({"eos_token_id": own}))
    assert conversion.read_folder(saved)[1].eos_tokens == expected


@pytest.mark.parametrize("token", [10**6, -1, "1", True, [1, None], 1.5])
def test_a_damaged_generation_config_is_refused(saved, token):
    (saved / "generation_config.json").write_text(json.dumps({"eos_token_id": token}))
    with pytest.raises(InputError, match="generation_config"):
        conversion.read_folder(saved)


def test_an_answer_ends_at_each_token_of_the_list(saved):
    """The second token of an answer, listed as an end token, becomes its last."""
    model = npgemma.load(saved)
    image = npgemma.example_image()
    ids = model.generate(image, "", max_new_tokens=4).token_ids
    second = next(i for i, token in enumerate(ids) if token != ids[0])
    (saved / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, ids[second]]}))
    answer = npgemma.load(saved).generate(image, "", max_new_tokens=4)
    assert answer.token_ids == ids[: second + 1]
    assert answer.finish_reason == "stop"
