"""tokenizer.json: ids and texts as Hugging Face's library has them, added tokens, and files of other kinds."""

import dataclasses
import json
import pathlib
import re
import shutil
import time

import numpy as np
import pytest
from support import CONFIGS

import conversion
import npgemma
import torch_ref
from npgemma.errors import InputError
from npgemma.files.tokenizer_json import BytePairs, Unigram
from npgemma.tokenizer import Tokenizer

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "tokenizers"
KINDS = "bpe", "unigram"


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    """A folder with tokenizer.json alone."""
    shutil.copy(GOLDEN / request.param / "tokenizer.json", tmp_path)
    return tmp_path


@pytest.fixture(params=KINDS)
def both(request, tmp_path):
    """A folder with both files, of which tokenizer.json has two tokens more."""
    for name in ("tokenizer.json", "tokenizer.model"):
        shutil.copy(GOLDEN / request.param / name, tmp_path)
    return tmp_path


def expected(kind):
    return json.loads((GOLDEN / kind / "expected.json").read_text())


def edit(folder, change):
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts_are_hugging_faces(kind):
    tokenizer = Tokenizer(GOLDEN / kind / "tokenizer.json")
    rows = expected(kind)
    assert len({row["text"] for row in rows}) >= 60
    wrong = [row["text"] for row in rows if tokenizer.encode(row["text"]) != row["ids"]]
    assert not wrong
    # Hugging Face leaves out special tokens; of the others npgemma writes every one.
    wrong = [row["text"] for row in rows if tokenizer.decode(row["ids"]) != row["decoded"]]
    assert [text for text in wrong if "<mask>" not in text] == []


@pytest.mark.parametrize("kind", KINDS)
def test_random_texts_against_the_library_itself(kind):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(GOLDEN / kind / "tokenizer.json"))
    ours = Tokenizer(GOLDEN / kind / "tokenizer.json")
    randomness = np.random.default_rng(0)
    parts = [*"abcdefe  \n\t▁.é猫🐈", "the ", "def ", "<loc0123>", "<defect>", "<part>", "<bos>", "  ", "self"]
    for _ in range(300):
        text = "".join(randomness.choice(parts, randomness.integers(0, 40)))
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, repr(text)


BYTES = {f"<0x{byte:02X}>": 10 + i for i, byte in enumerate("é".encode())}
PAIRS = {"vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, "aab": 4} | BYTES, "merges": ["a b", ["a", "ab"]], "unk_token": "?"}
GROWS = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
UNIGRAM = {"vocab": [["?", 0], ["a", -1], ["b", -2], ["ab", -2.5], ["bb", -9], ["<0xC3>", -9]], "unk_id": 0}


@pytest.mark.parametrize(
    ("settings", "text", "ids"),
    [
        ({}, "aab", [4]),
        ({}, "bab", [2, 3]),
        ({}, "xéyb", [0, 0, 0, 2]),
        ({"fuse_unk": True}, "xéyb", [0, 2]),
        ({"fuse_unk": True}, "bxyb", [2, 0, 2]),
        ({"unk_token": None}, "xéyb", [2]),
        ({"unk_token": None, "fuse_unk": True}, "xb", [2]),
        ({"byte_fallback": True}, "xéb", [0, 10, 11, 2]),
        ({"byte_fallback": True, "unk_token": None}, "xé", [10, 11]),
        ({"merges": []}, "aab", [1, 1, 2]),
        ({"merges": [], "ignore_merges": True}, "aab", [4]),
        ({"ignore_merges": True}, "aabb", [4, 2]),
    ],
)
def test_byte_pairs_by_hand(settings, text, ids):
    assert BytePairs(PAIRS | settings, pathlib.Path("x")).encode(text) == ids


@pytest.mark.parametrize(
    ("settings", "text", "ids"),
    [
        ({}, "ab", [3]),  # -2.5 is more than -1 - 2
        ({}, "bb", [2, 2]),  # and -2 - 2 more than -9
        ({}, "axyb", [1, 0, 2]),  # unknown characters in a row are one
        ({}, "é", [0]),
        ({"byte_fallback": True}, "é", [0]),  # a byte has no piece
        ({"byte_fallback": True, "vocab": [*UNIGRAM["vocab"], ["<0xA9>", -9]]}, "é", [5, 6]),
        ({"unk_id": 5}, "x", [5]),
    ],
)
def test_unigram_by_hand(settings, text, ids):
    assert Unigram(UNIGRAM | settings, pathlib.Path("x")).encode(text) == ids


@pytest.mark.parametrize("unknown", [-1, 6, True, 1.0, None])
def test_an_unknown_piece_that_is_none_of_the_vocabulary(unknown):
    with pytest.raises(InputError, match=r"unk_id.? should be"):
        Unigram(UNIGRAM | {"unk_id": unknown}, pathlib.Path("x"))


def test_a_prompt_from_tokenizer_json_alone(folder):
    tokenizer = Tokenizer(folder)
    ids = tokenizer.prompt("detect cat")
    assert ids[0] == tokenizer.bos == 2
    assert tokenizer.eos == 1
    assert tokenizer.decode(ids) == "detect cat\n"
    assert "<image>" in tokenizer.decode(tokenizer.prompt("a<image>b"))


def test_characters_are_held_back_until_complete(folder):
    tokenizer = Tokenizer(folder)
    ids = tokenizer.encode("x 🐈!")
    shown = [tokenizer.decode_complete(ids[:n]) for n in range(len(ids) + 1)]
    assert not any("\ufffd" in text for text in shown)
    assert shown[-1] == "x 🐈!"


def test_both_files_give_the_ids_of_either(both):
    tokenizer, pieces = Tokenizer(both), Tokenizer(both / "tokenizer.model").pieces
    # The embedded checkpoint's kind of file has an image token before them.
    added = tokenizer.size - 2
    assert added - pieces.get_piece_size() in (0, 1)
    text = "a dent<defect> <part> <loc0123>é"
    ids = tokenizer.encode(text)
    assert added in ids
    assert added + 1 in ids
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
    assert tokenizer.prompt("caption en")[1:-1] == pieces.encode("caption en")


def test_added_tokens_of_the_older_files(both):
    size = Tokenizer(both / "tokenizer.model").size
    (both / "tokenizer.json").unlink()
    (both / "added_tokens.json").write_text(json.dumps({"<image>": size, "<defect>": size + 1}))
    entry = {"content": "<rust>", "special": True}
    (both / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {str(size + 2): entry}}))
    tokenizer = Tokenizer(both)
    assert tokenizer.encode("<rust><defect>") == [size + 2, size + 1]
    assert tokenizer.decode([size + 1, size, size + 2]) == "<defect><rust>"
    assert tokenizer.encode("<image>") == Tokenizer(both / "tokenizer.model").encode("<image>")


def test_an_id_of_two_pieces_is_an_error_and_other_differences_are_notes(both):
    content = (both / "tokenizer.json").read_text()

    def rename(document):
        vocabulary = document["model"]["vocab"]
        if isinstance(vocabulary, list):
            vocabulary[300][0] = "other"
        else:
            piece = next(piece for piece, i in vocabulary.items() if i == 300)
            vocabulary["other"] = vocabulary.pop(piece)

    edit(both, rename)
    with pytest.raises(InputError, match=r"'other' to tokenizer\.json"):
        Tokenizer(both)
    (both / "tokenizer.json").write_text(content)
    edit(both, lambda document: document["added_tokens"][4].update(content="<wrong>"))
    with pytest.raises(InputError, match="'<wrong>' to another"):
        Tokenizer(both)
    (both / "tokenizer.json").write_text(content)
    edit(both, lambda document: document["added_tokens"].append({"id": 5000, "content": "<mask>"}))
    assert any("is added as 5000" in note for note in Tokenizer(both).notes)


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("model", {"type": "WordPiece", "vocab": {}}, "WordPiece"),
        ("model", None, "model"),
        ("normalizer", {"type": "NFKC"}, "NFKC"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": " "}, "content": "x"}, "normalizer"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Precompiled"}]}, "Precompiled"),
        ("pre_tokenizer", {"type": "Metaspace"}, "Metaspace"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"String": "a"}, "behavior": "Isolated"}, "pre_tokenizer"),
        ("decoder", {"type": "WordPiece"}, "WordPiece"),
        ("added_tokens", [{"id": "x", "content": "y"}], "id"),
        ("added_tokens", 5, "added_tokens should be a list"),
        ("added_tokens", [{"id": 5, "content": "x" * 300}], "more than 256 letters"),
        ("normalizer", {"type": "Sequence", "normalizers": [GROWS] * 40}, "times as long"),
        ("decoder", GROWS | {"content": "long" * 10**6}, "times as long"),
        ("model", PAIRS | {"merges": ["a x"]}, "merges to ax, which is no piece"),
        (
            "model",
            PAIRS | {"vocab": {"<bos>": 7, "<eos>": 8, "?": 0, "x" * 300: 9}, "merges": []},
            "piece of 300 letters",
        ),
        ("model", UNIGRAM | {"vocab": [["?", 10**400]], "type": "Unigram"}, "scores"),
    ],
)
def test_other_kinds_are_refused_by_name(folder, part, value, says):
    edit(folder, lambda document: document.update({part: value}))
    with pytest.raises(InputError, match=says):
        Tokenizer(folder)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("added_tokens.json", ["<defect>"], "should be an object"),
        ("added_tokens.json", {"<defect>": "5"}, "<defect> should be a whole number"),
        ("added_tokens.json", {"<defect>": -1}, "a whole number from 0"),
        ("added_tokens.json", {f"<{i}>": i for i in range(70_000)}, "70000 added tokens"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9" * 5000: "<defect>"}}, "a whole number from 0"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": None}}, "added_tokens_decoder.5 should be"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": {"content": "<defect>"}}}, "id 5 is '.*' to one file"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_damaged_files_beside_the_pieces(both, file, content, says, alone):
    (both / "tokenizer.model").unlink() if alone else (both / "tokenizer.json").unlink()
    (both / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=says):
        Tokenizer(both)


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip"])
@pytest.mark.parametrize("text", ["<q>", "<q> ", "a<q>"])
def test_a_prompt_of_many_tokens_takes_time_by_its_length(folder, flag, text):
    """It took the square: minutes."""
    edit(folder, lambda document: document["added_tokens"].append({"id": 5000, "content": "<q>", flag: True}))
    start = time.process_time()
    assert len(Tokenizer(folder).encode(text * 30_000)) >= 30_000
    assert time.process_time() - start < 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b'{"model": {"type": "BPE"}}', b"\xff", b"3"])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize("package", [npgemma, torch_ref])
def test_an_added_token_goes_through_the_model(both, package):
    """It is encoded in the prompt, and written in an answer."""
    size = Tokenizer(both).size
    text = dataclasses.replace(CONFIGS["two key/value heads"].text, vocabulary=size + 3)
    config = dataclasses.replace(CONFIGS["two key/value heads"], text=text)
    params = conversion.random_params(config, 0)
    # The final norm leaves one channel, which one of the two added tokens answers, by its sign.
    defect, part = (Tokenizer(both).encode(word)[0] for word in ("<defect>", "<part>"))
    params.text.norm[:] = -1
    params.text.norm[0] = 50
    params.text.embedding[:, 0] = 0.01
    params.text.embedding[[defect, part], 0] = 30, -30
    conversion.save(both, params, config)
    model = package.load(both)
    assert defect in model.tokenizer.prompt("find <defect>")
    answer = model.generate(npgemma.example_image(), "find <defect>", max_new_tokens=2)
    assert re.fullmatch("(<defect>|<part>){2}", answer.text)
