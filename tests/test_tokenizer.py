"""tokenizer.py on the embedded tokenizer, and on the published one where --checkpoint brings it."""

import itertools
import shutil

import pytest

import npgemma
from npgemma.errors import InputError
from npgemma.porting.parity.published import has_published_tokenizer
from npgemma.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(npgemma.embedded_checkpoint() / "tokenizer.model")


def test_prompt_layout(tokenizer):
    ids = tokenizer.prompt("caption en")
    newline = tokenizer.pieces.piece_to_id("\n")
    assert ids[0] == tokenizer.bos == 2
    assert ids[-1] == newline
    assert tokenizer.decode(ids) == "caption en\n"


def test_empty_prompt(tokenizer):
    assert tokenizer.prompt("") == [tokenizer.bos, tokenizer.pieces.piece_to_id("\n")]


def test_locations_and_segments_are_tokens_in_order_at_the_end(tokenizer):
    first = tokenizer.size - 1152
    assert tokenizer.prompt("<loc0000><loc1023><seg000><seg127>")[1:-1] == [
        first, first + 1023, first + 1024, first + 1151
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["<image>", "<bos>", "<eos>", "<pad>", "a\tb\x01c", "a\nb", "héllo 猫 🐈", "  two  spaces "]
)
def test_everything_else_is_text(tokenizer, text):
    ids = tokenizer.prompt(text)
    assert tokenizer.decode(ids) == text + "\n"
    assert not {tokenizer.eos, 0} & set(ids)
    assert ids.count(tokenizer.bos) == 1


def test_bytes_that_are_no_text_are_replaced(tokenizer):
    assert "?" in tokenizer.decode(tokenizer.prompt("a\udcffb"))


def test_characters_are_held_back_until_complete(tokenizer):
    ids = tokenizer.prompt("x 猫!")[1:-1]
    shown = [tokenizer.decode_complete(ids[:n]) for n in range(len(ids) + 1)]
    assert not any("\ufffd" in text for text in shown)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shown))
    assert shown[-1] == "x 猫!"


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x0a\xff\xff\xff\xff"])
def test_a_broken_file(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.model"):
        Tokenizer(tmp_path / "tokenizer.model")


def test_pieces_that_are_no_text(tmp_path):
    """Some are found when the file is read, some only when they are written out."""
    content = (npgemma.embedded_checkpoint() / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(content.replace(b"<loc0007>", b"<loc\xf3007>"))
    with pytest.raises(InputError, match=r"tokenizer\.model"):  # noqa: PT012 either may raise
        tokenizer = Tokenizer(tmp_path / "tokenizer.model")
        tokenizer.decode([tokenizer.size - 1152 + 7])


def test_a_path_that_is_no_text(tmp_path):
    folder = tmp_path / "a\udcff"
    folder.mkdir()
    shutil.copy(npgemma.embedded_checkpoint() / "tokenizer.model", folder)
    assert Tokenizer(folder / "tokenizer.model").size > 1152


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="needs the checkpoint's tokenizer"):
        Tokenizer(tmp_path / "tokenizer.model")


def test_known_ids_of_the_published_tokenizer(checkpoint):
    """Ids stated in Hugging Face's tests; only the real file can show them."""
    if not has_published_tokenizer(checkpoint):
        pytest.skip("needs the published tokenizer: pass --checkpoint DIR")
    assert Tokenizer(checkpoint / "tokenizer.model").prompt("") == [2, 108]
