"""The files of a tokenizer: pieces from ``tokenizer.model`` or ``tokenizer.json``, and the tokens that others add."""

import os
import pathlib
import re

from npgemma.errors import InputError
from npgemma.files.added_tokens import IMAGE, TOKEN, read_tokens
from npgemma.files.foreign import shown
from npgemma.files.reading import read_json
from npgemma.files.sentencepiece_file import ModelPieces
from npgemma.files.tokenizer_json import BYTE, MOST_BYTES, JsonPieces

MODEL, JSON = "tokenizer.model", "tokenizer.json"
UNUSED = re.compile(r"^<unused\d+>$", re.MULTILINE)
CONFIG = {"added_tokens_decoder": ({str: (TOKEN, str)}, None)}
LISTED = {"model": ({"vocab": (dict, list, None)}, None), "added_tokens": ([TOKEN | {"id": int}], None)}


def read_pieces(path):
    """Return the path (str) of a tokenizer's pieces, the pieces, the tokens added to them by id, and a list of notes.

    The path is as for `npgemma.tokenizer.Tokenizer`. The pieces are `ModelPieces` or `JsonPieces`; the
    notes say which differences between files do no harm. InputError if the file is missing or damaged, or two files
    give one id to different pieces.
    """
    path = pathlib.Path(path)
    folder = path if os.path.isdir(path) else None
    if folder:
        path = folder / (JSON if os.path.lexists(folder / JSON) and not os.path.lexists(folder / MODEL) else MODEL)
    if not os.path.isfile(path):
        raise InputError(f"no tokenizer at '{path}': text in or out needs the checkpoint's {MODEL} or {JSON}")
    pieces = JsonPieces(path) if path.suffix == ".json" else ModelPieces(path)
    added, notes = _additions(folder, pieces, path.name == MODEL) if folder else ({}, [])
    return os.fspath(path), pieces, added, notes


def has_tokenizer(folder):
    """Return whether a folder holds a tokenizer file."""
    return any(os.path.lexists(pathlib.Path(folder) / name) for name in (MODEL, JSON))


def check_other(tokenizer, folder):
    """Refuse a tokenizer if another folder, an adapter's or its base's, gives one of its ids another text."""
    own, theirs = _texts(tokenizer.pieces, tokenizer.added), {token.id: token.content for token in _small_files(folder)}
    if has_tokenizer(folder):
        try:
            _, *found, _ = read_pieces(folder)
        except InputError:  # damaged, but not needed
            return
        theirs = {i: content for i, content in _texts(*found).items() if i in own}
    for i, content in theirs.items():
        mine = own.get(i, "")
        # Which word of its own a fine-tune puts in the place of an unused piece is no contradiction.
        if mine != content and not _same(mine, content) and not UNUSED.search(f"{mine}\n{content}"):
            raise InputError(
                f"id {i} is {mine!r} in '{tokenizer.path}', but {content!r} in '{folder}': an adapter and its base "
                "should have one tokenizer; say which with --tokenizer FILE"
            )


def _texts(pieces, added):
    return pieces.all_pieces() | {i: token.content for i, token in added.items()}


def _additions(folder, pieces, beside):
    """Return the tokens that a folder adds to its pieces, by id, and notes of harmless differences.

    ``beside`` says whether the pieces are those of ``tokenizer.model``, beside which there may be a ``tokenizer.json``.
    """
    listed, notes = [], []
    if beside and os.path.lexists(folder / JSON):
        document = read_json(folder / JSON, LISTED, MOST_BYTES)
        listed += read_tokens(document.get("added_tokens") or [], folder / JSON)
        notes += _compare((document.get("model") or {}).get("vocab") or [], pieces, folder)
    listed += _small_files(folder)
    added, size = {}, pieces.get_piece_size()
    for token in listed:
        other = pieces.id_to_piece(token.id) if token.id < size else added.get(token.id, token).content
        if not _same(other, token.content):
            raise InputError(
                f"in '{folder}' id {token.id} is {other!r} to one file and {token.content!r} to another: take all "
                "tokenizer files from one checkpoint"
            )
        if token.id < size:
            continue
        if pieces.piece_to_id(token.content) != pieces.unk_id():
            known = pieces.piece_to_id(token.content)
            notes.append(f"'{shown(token.content, 80)}' is id {known} of the pieces and is added as {token.id}")
        added.setdefault(token.id, token)
    return added, notes


def _small_files(folder):
    """Return the added tokens of the files beside the pieces that older versions of transformers write."""
    entries, path, config = [], folder / "added_tokens.json", folder / "tokenizer_config.json"
    if os.path.lexists(path):
        entries += [{"content": content, "id": i} for content, i in read_json(path, {str: int}).items()]
    tokens = read_tokens(entries, path)
    if os.path.lexists(config):
        decoder = read_json(config, CONFIG).get("added_tokens_decoder") or {}
        ids = [int(i) if i.isdecimal() and len(i) < 9 else i for i in decoder]
        entries = [entry if isinstance(entry, dict) else {"content": entry} for entry in decoder.values()]
        tokens += read_tokens([entry | {"id": i} for i, entry in zip(ids, entries)], config)
    return tokens


def _compare(vocabulary, pieces, folder):
    """Refuse a ``tokenizer.json`` that gives an id of ``tokenizer.model`` to another piece; note what it lacks."""
    if isinstance(vocabulary, dict):
        listed = vocabulary.items()
    else:
        listed = ((entry[0], i) for i, entry in enumerate(vocabulary) if isinstance(entry, list) and entry)
    size, shared, further = pieces.get_piece_size(), 0, 0
    known = pieces.all_pieces()
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


def _same(piece, other):
    """Return whether two pieces are the same text: Hugging Face writes the byte piece of the tab as the character."""

    def plain(text):
        """Return an ASCII byte piece as its character."""
        byte = BYTE.fullmatch(text) if isinstance(text, str) else None
        return chr(int(byte[1], 16)) if byte and int(byte[1], 16) < 128 else text

    return plain(piece) == plain(other)
