"""A usable PaliGemma tokenizer, made from a text: the layout of the published one, with other words in it.

The published ``tokenizer.model`` is gated like the weights. Whatever is made here has its special pieces
(``<pad>`` 0, ``<eos>`` 1, ``<bos>`` 2, ``<unk>`` 3), its newline piece, its bytes for whatever is no word, and its
``<loc>`` and ``<seg>`` pieces in the same order at the end.
"""

import io

import sentencepiece

from npgemma.files.writing import replacing

LOCATIONS = [f"<loc{i:04}>" for i in range(1024)]
SEGMENTS = [f"<seg{i:03}>" for i in range(128)]
# What a tokenizer knows whose words do not matter.
WORDS = "caption detect segment answer ocr en where is the cat ? red blue green circle square ; yes no a b c"
# Kinds of pieces in SentencePiece's file format.
USER_DEFINED, UNUSED = 4, 5


def write_tokenizer(path, sentences, text_pieces: int | None = None, trained_pieces=1000) -> int:
    """Train a SentencePiece model and append PaliGemma's pieces; return how many there are, which is the image token's
    id.

    In a small text common words end up in fragments, unless each stands once more alone, with and without a space
    before it. At most ``trained_pieces`` are trained, fewer if the text has no more; pieces that are never used fill
    them up to ``text_pieces`` before ``<loc0000>`` (256000 in the published tokenizer), by default none.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=trained_pieces,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        # Gemma's rules: text is taken as it is, spaces included.
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        user_defined_symbols=["<mask>", "\n"],
        num_threads=1,
        minloglevel=2,
    )
    content = model.getvalue()
    trained = sentencepiece.SentencePieceProcessor(model_proto=content).get_piece_size()
    fillers = [f"<unused{i}>" for i in range((text_pieces or trained) - trained)]
    content += b"".join(_piece(text, UNUSED) for text in fillers)
    content += b"".join(_piece(text, USER_DEFINED) for text in LOCATIONS + SEGMENTS)
    with replacing(path) as file:
        file.write(content)
    return trained + len(fillers) + len(LOCATIONS) + len(SEGMENTS)


def _piece(text, kind):
    """Encode one piece in SentencePiece's file format (Protocol Buffers).

    A file is a message whose field 1 repeats, once for each piece; a repeated field may go on anywhere in a message,
    so appending to the file appends to the vocabulary. A piece has its text in field 1, a score in field 2 (left out:
    0) and its kind in field 3; a length under 128 is one byte.
    """
    text = text.encode()
    body = bytes([0x0A, len(text)]) + text + bytes([0x18, kind])
    return bytes([0x0A, len(body)]) + body
