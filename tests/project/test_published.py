"""published.py: a published checkpoint is recognised, and nothing else is silently taken for another."""

import json
import shutil

import pytest

import npgemma
from conversion import vocabulary
from conversion.folder import read_config
from conversion.hub_config import to_hub
from npgemma.config import PUBLISHED
from npgemma.porting.parity import published
from npgemma.tokenizer import Tokenizer

SENTENCES = ["Where is the cow standing?", "caption en"] * 5


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with the tokenizer that synthesize writes."""
    folder = tmp_path_factory.mktemp("filled")
    assert vocabulary.write_tokenizer(folder / "tokenizer.model", SENTENCES, text_pieces=256000) == published.PIECES
    return folder


@pytest.fixture
def words(tmp_path, monkeypatch):
    """A folder with a tokenizer of the published size, and words up to the last piece."""
    monkeypatch.setattr(vocabulary, "UNUSED", 1)
    vocabulary.write_tokenizer(tmp_path / "tokenizer.model", SENTENCES, text_pieces=256000)
    return tmp_path


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_read_from_the_config(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(to_hub(PUBLISHED[name])))
    assert published.size_of(read_config(tmp_path)) == name


def test_another_size_is_none_of_the_published(tmp_path):
    document = to_hub(PUBLISHED["paligemma-3b-224"])
    document["text_config"]["num_hidden_layers"] -= 1
    folder = tmp_path / "paligemma-3b-mix-224"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(document))
    assert published.size_of(read_config(folder)) is None


def test_the_embedded_tokenizer_is_not_the_published_one(tmp_path):
    shutil.copy(npgemma.embedded_checkpoint() / "tokenizer.model", tmp_path)
    assert not published.has_published_tokenizer(tmp_path)


def test_the_tokenizer_of_synthesize_is_not_the_published_one(filled):
    assert not published.has_published_tokenizer(filled)


def test_a_tokenizer_of_words_with_other_ids_is_an_error(words):
    with pytest.raises(ValueError, match="should give the ids"):
        published.has_published_tokenizer(words)


def test_a_tokenizer_with_the_known_ids_is_the_published_one(words, monkeypatch):
    pieces = Tokenizer(words / "tokenizer.model").pieces
    monkeypatch.setattr(published, "KNOWN_IDS", {text: pieces.encode(text) for text in published.KNOWN_IDS})
    assert published.has_published_tokenizer(words)


def test_the_variant_is_told_by_numbers():
    answers = published.PT_ANSWERS
    assert published.variant(0.001, None) == "mix"
    assert published.variant(3.0, answers) == "pt"
    assert published.variant(3.0, None) is None


@pytest.mark.parametrize("wrong", published.PT_ANSWERS)
def test_weights_with_the_numbers_of_neither_variant_are_an_error(wrong):
    with pytest.raises(ValueError, match="neither mix"):
        published.variant(3.0, published.PT_ANSWERS | {wrong: "a horse"})
