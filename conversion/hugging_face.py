"""A tokenizer as Hugging Face's libraries read it: ``tokenizer.json`` and ``tokenizer_config.json``.

They are made from ``tokenizer.model``, say the same, and let ``AutoProcessor.from_pretrained`` open a folder of ours.
This package itself does not read them.
"""

import json

import sentencepiece

from npgemma.files.writing import replacing

# Hugging Face's image token, one id after the last piece.
IMAGE = "<image>"
SPACE = "▁"


def write_tokenizer_files(folder):
    """Write both files beside a ``tokenizer.model`` that `conversion.vocabulary.write_tokenizer` has made."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "PaliGemmaProcessor",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    for name, content in (("tokenizer.json", _tokenizer(pieces)), ("tokenizer_config.json", config)):
        with replacing(folder / name) as file:
            file.write((json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


def _tokenizer(pieces):
    """Return what ``tokenizer.json`` holds: SentencePiece's unigram model in the words of the tokenizers library."""
    count = pieces.get_piece_size()
    added = [_added(i, pieces.id_to_piece(i), pieces.is_control(i)) for i in range(count) if _whole(pieces, i)]
    vocabulary = [[pieces.id_to_piece(i), pieces.get_score(i)] for i in range(count)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        # What stands for itself wherever it occurs; all else is cut into the most probable pieces.
        "added_tokens": [*added, _added(count, IMAGE, True)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {"type": "Unigram", "unk_id": pieces.unk_id(), "vocab": vocabulary, "byte_fallback": True},
    }


def _whole(pieces, i):
    """Return whether a piece is a control piece or user-defined, and so never made of smaller pieces."""
    return pieces.is_control(i) or pieces.is_unknown(i) or (pieces.get_score(i) == 0 and not pieces.is_byte(i))


def _added(i, content, special):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": i, "content": content, **flags, "special": special}
