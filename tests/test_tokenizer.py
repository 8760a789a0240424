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


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (lambda content: content.replace(b"<loc0007>", b"<loc\xf3007>"), "can't decode byte 0xf3"),
        (lambda content: content + message(1, message(1, b"a" * 10**6)), "one of more than 256 letters"),
        (lambda content: content + message(1, message(1, b"a" * 257)), "a piece of 257 letters"),
        (lambda content: content + message(3, message(2, bytes(9))), "normalises text"),
        (lambda content: content + message(5, message(2, bytes(9))), "normalises text"),
        (lambda content: content[:-2], "cut off"),
        (lambda content: content + bytes(50_000_000), "more than 50 MB"),
    ],
)
def test_a_file_that_the_library_would_believe(tmp_path, changed, says):
    content = (npgemma.embedded_checkpoint() / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(changed(content))
    with pytest.raises(InputError, match=says):
        Tokenizer(tmp_path / "tokenizer.model")
    # The library tests itself with a text that would take it hours.
    tested = message(4, message(1, message(1, b"a" * 10**7)))
    (tmp_path / "tokenizer.model").write_bytes(content + message(1, message(1, b"a" * 250)) + tested)
    assert Tokenizer(tmp_path / "tokenizer.model").encode("cat")


def message(field, content):
    """Encode one field of a message of Protocol Buffers."""
    size = len(content)
    return (
        bytes([field << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21]) + content
    )


def test_a_text_has_an_end(tokenizer):
    assert len(tokenizer.encode("x" * 100_000)) == 100_000
    with pytest.raises(InputError, match="a text of 50000000 letters is too long for a prompt"):
        tokenizer.prompt("x" * 50_000_000)


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
