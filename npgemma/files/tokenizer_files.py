"""The files of a tokenizer: pieces from ``tokenizer.model`` or ``tokenizer.json``, and the tokens that others add."""

import os
import pathlib

import sentencepiece

from npgemma.errors import InputError
from npgemma.files.added_tokens import IMAGE, AddedToken, check_id, read_tokens
from npgemma.files.reading import read_json, reading
from npgemma.files.tokenizer_json import BYTE, JsonPieces

MODEL, JSON = "tokenizer.model", "tokenizer.json"


def read_pieces(path):
    """Return the path (str) of a tokenizer's pieces, the pieces, the tokens added to them by id, and a list of notes.

    The path is as for `npgemma.tokenizer.Tokenizer`. The pieces are a ``SentencePieceProcessor`` or `JsonPieces`; the
    notes say which differences between files do no harm. InputError if the file is missing or damaged, or two files
    give one id to different pieces.
    """
    path = pathlib.Path(path)
    folder = path if os.path.isdir(path) else None
    if folder:
        path = folder / (JSON if (folder / JSON).exists() and not (folder / MODEL).exists() else MODEL)
    if not os.path.isfile(path):
        raise InputError(f"no tokenizer at '{path}': text in or out needs the checkpoint's {MODEL} or {JSON}")
    pieces = JsonPieces(path) if path.suffix == ".json" else _read_model(path)
    added, notes = _additions(folder, pieces) if folder and path.name == MODEL else ({}, [])
    return os.fspath(path), pieces, added, notes


def has_tokenizer(folder):
    """Return whether a folder holds a tokenizer file."""
    return any((pathlib.Path(folder) / name).exists() for name in (MODEL, JSON))


def _read_model(path):
    with reading(path, "a SentencePiece model", "download it again"):
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes() or b"empty")


def _additions(folder, pieces):
    """Return the tokens that a folder adds to its ``tokenizer.model``, by id, and notes of harmless differences."""
    listed, notes = [], []
    if (folder / JSON).exists():
        document = read_json(folder / JSON)
        document = document if isinstance(document, dict) else {}
        listed += read_tokens(document.get("added_tokens") or [], folder / JSON)
        notes += _compare(document.get("model"), pieces, folder)
    listed += _small_files(folder)
    added, size = {}, pieces.get_piece_size()
    for token in listed:
        other = _piece(pieces, token.id) if token.id < size else added.get(token.id, token).content
        if not _same(other, token.content):
            raise InputError(
                f"in '{folder}' id {token.id} is {other!r} to one file and {token.content!r} to another: take all "
                "tokenizer files from one checkpoint"
            )
        if token.id < size:
            continue
        if pieces.piece_to_id(token.content) != pieces.unk_id():
            known = pieces.piece_to_id(token.content)
            notes.append(f"{token.content!r} is id {known} of {MODEL} and is added as {token.id}")
        added.setdefault(token.id, token)
    return added, notes


def _small_files(folder):
    """Return the added tokens of the files beside ``tokenizer.model`` that older versions of transformers write."""
    listed = []
    path = folder / "added_tokens.json"
    if path.exists():
        document = read_json(path)
        for content, i in (document if isinstance(document, dict) else {}).items():
            listed.append(AddedToken(check_id(i, path), content))
    path = folder / "tokenizer_config.json"
    if path.exists():
        document = read_json(path)
        tokens = document.get("added_tokens_decoder") if isinstance(document, dict) else None
        for i, entry in (tokens if isinstance(tokens, dict) else {}).items():
            entry = entry if isinstance(entry, dict) else {"content": entry}
            listed += read_tokens([entry | {"id": int(i) if i.isdecimal() else i}], path)
    return [token for token in listed if token.content != IMAGE]


def _compare(model, pieces, folder):
    """Refuse a ``tokenizer.json`` that gives an id of ``tokenizer.model`` to another piece; note what it lacks."""
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        listed = vocabulary.items()
    else:
        entries = enumerate(vocabulary if isinstance(vocabulary, list) else [])
        listed = ((entry[0], i) for i, entry in entries if isinstance(entry, list) and entry)
    size, shared, further = pieces.get_piece_size(), 0, 0
    known = pieces.id_to_piece(list(range(size)))
    for piece, i in listed:
        if isinstance(i, int) and 0 <= i < size:
            shared += 1
            if not _same(known[i], piece):
                raise InputError(
                    f"in '{folder}' id {i} is {known[i]!r} to {MODEL} and {piece!r} to {JSON}: take both files from "
                    "one checkpoint"
                )
        elif piece != IMAGE:
            further += 1
    notes = [f"{JSON} lacks {size - shared} of the {size} pieces of {MODEL}"] if shared < size else []
    return notes + ([f"{JSON} has {further} pieces that {MODEL} does not have"] if further else [])


def _piece(pieces, i):
    try:
        return pieces.id_to_piece(i)
    except UnicodeDecodeError:
        return None


def _same(piece, other):
    """Return whether two pieces are the same text: Hugging Face writes the byte piece of the tab as the character."""

    def plain(text):
        """Return an ASCII byte piece as its character."""
        byte = BYTE.fullmatch(text) if isinstance(text, str) else None
        return chr(int(byte[1], 16)) if byte and int(byte[1], 16) < 128 else text

    return plain(piece) == plain(other)
