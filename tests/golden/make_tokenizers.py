"""Writes ``tests/golden/tokenizers``: two tokenizers as Hugging Face saves them, and the ids that it gives to texts.

``bpe`` has Gemma's kind, byte-pair encoding with byte fallback, trained by SentencePiece and converted by transformers;
``unigram`` has the embedded checkpoint's. Run ``python tests/golden/make_tokenizers.py`` to write them again.
"""

import io
import json
import pathlib
import sys

import sentencepiece
import tokenizers
from transformers import GemmaTokenizer
from transformers.convert_slow_tokenizer import generate_merges

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
FOLDER = ROOT / "tests" / "golden" / "tokenizers"

# ruff: noqa: RUF001 letters that look like others are what is tested
TEXTS = [
    "", " ", "  ", "   a", "a   ", "caption en", "answer en how many cats are there?",
    "detect cat ; dog", "segment cat", "ocr", "Where is the cow standing?",
    "ALL CAPS AND mixedCase", "snake_case and kebab-case", "one two three four",
    "1234567890 3.14159 1,000,000", "e-mail@example.com", "https://example.com/a?b=c&d=%20", "a\tb",
    "\t\t", "\n", "\n\n", "a\nb\n\nc\r\nd", "\x00\x01\x02\x1f\x7f", "\u00a0\u2003\u3000",
    "\u200b\u200d\ufeff", "tab\tand  spaces   here    now", "        eight",
    " " * 31 + "x" + " " * 17, "▁literal▁marks", "<0x41><0x09><0xFF>", "<loc0000>",
    "<loc0000><loc1023>", "<loc0123><loc0456><loc0789><loc1000> cat ; <loc0001>",
    "<seg000><seg127> a", "<loc00000>", "<loc12>", "<bos>", "a<bos>b<eos>", "<pad><unk><mask>",
    "<s></s>", "<<loc0001>>", "<defect> here", "a<defect>b <defect><defect>", "defect", "<part> of",
    "x<part>y <part>", "héllo wörld", "e\u0301 combining", "Straße GROẞ", "Ελληνικά",
    "Русский язык", "עברית", "العربية", "हिन्दी", "ไทย", "日本語のテキスト", "中文文本", "한국어", "Tiếng Việt",
    "猫 on a 🐈", "👩‍👩‍👧‍👦 👍🏽 🇫🇷", "𝕄𝕒𝕥𝕙 𐍈", "café naïve ™ © €", "“quotes” — dashes…", "!!!???...",
    "(){}[]<>|\\/", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ab" * 40, "the the the the",
    "Thequickbrownfoxjumps", "\ufffd", "\U0010ffff", "´`^~¨",
]  # fmt: skip


def sentences():
    """Return text to train on: the project's source and the texts themselves."""
    lines = [line for file in sorted((ROOT / "conversion").glob("*.py")) for line in file.read_text().split("\n")]
    return [line for line in lines + TEXTS if line.strip() and "\x00" not in line]


def train(kind, size):
    """Return a SentencePiece model with Gemma's rules."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()), model_writer=model, model_type=kind, vocab_size=size, byte_fallback=True,
        hard_vocab_limit=False, character_coverage=0.98, normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, split_digits=True, pad_id=0, eos_id=1,
        bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
        user_defined_symbols=["<mask>", "\n", "\n\n", "▁▁", "▁▁▁▁"], num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def main():
    """Write both tokenizers and the ids."""
    from conversion.hugging_face import _tokenizer
    from conversion.vocabulary import LOCATIONS, SEGMENTS, USER_DEFINED, _piece

    for kind in ("bpe", "unigram"):
        folder = FOLDER / kind
        folder.mkdir(parents=True, exist_ok=True)
        # Only as many locations as the texts need: a file of a repository should be small.
        used = [piece for piece in LOCATIONS + SEGMENTS if any(piece in text for text in TEXTS)]
        content = train(kind, 700) + b"".join(_piece(text, USER_DEFINED) for text in used)
        (folder / "tokenizer.model").write_bytes(content)
        pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
        if kind == "bpe":
            vocabulary = {pieces.id_to_piece(i): i for i in range(len(pieces))}
            # As in the published file, where the tab is a piece in place of its byte.
            vocabulary["\t"] = vocabulary.pop("<0x09>")
            tokenizer = GemmaTokenizer(vocab=vocabulary, merges=generate_merges(vocabulary))
            own = [i for i in range(len(pieces)) if pieces.id_to_piece(i) in ("\n", "\n\n", "▁▁", "▁▁▁▁", *used)]
            added = [tokenizers.AddedToken(pieces.id_to_piece(i), normalized=False) for i in own]
            tokenizer.add_tokens(added)
            tokenizer = tokenizer.backend_tokenizer
        else:
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(_tokenizer(pieces)))
        tokenizer.add_tokens(["<defect>", tokenizers.AddedToken("<part>", single_word=True, lstrip=True, rstrip=True)])
        tokenizer.save(str(folder / "tokenizer.json"))
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
        decoded = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
        expected = [{"text": t, "ids": i, "decoded": d} for t, i, d in zip(TEXTS, ids, decoded)]
        rows = ",\n".join(map(json.dumps, expected))
        (folder / "expected.json").write_text(f"[\n{rows}\n]\n")


if __name__ == "__main__":
    main()
