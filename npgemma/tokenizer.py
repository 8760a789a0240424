"""Text to token ids and back, with PaliGemma's prompt around it: the checkpoint's tokenizer.model or tokenizer.json.

A model knows a fixed list of *pieces* (subwords), each with a row of its embedding table. Frequent words are one piece,
rarer ones are put together from several ("segment" + "ation"), and what no piece covers is spelt in bytes: so a list of
finite length can write any text, and common text is short.

The vocabulary (published models): the 256000 pieces of Gemma, then ``<loc0000>`` to ``<loc1023>`` for coordinates and
``<seg000>`` to ``<seg127>`` for masks. To the model these are ordinary rows, learned like words: nothing in the decoder
knows that ``<loc0100>`` lies beside ``<loc0101>``. Images have no token here: their vectors are put in front of the
text's.
"""

import itertools
import os
import pathlib

import sentencepiece

from npgemma.added_tokens import IMAGE, AddedToken, Matcher, check_id, read_tokens
from npgemma.errors import InputError
from npgemma.files import read_json, refuse_pointer
from npgemma.tokenizer_json import BYTE, JsonPieces

MODEL, JSON = "tokenizer.model", "tokenizer.json"


class Tokenizer:
    """The pieces of a tokenizer file with the ids that PaliGemma needs, and the tokens that a fine-tune added.

    Parameters
    ----------
    path : str or os.PathLike
        A ``tokenizer.model`` (SentencePiece), a ``tokenizer.json``, or a folder with either. In a folder with both,
        ``tokenizer.model`` encodes, and the other files of the folder add their tokens.

    Attributes
    ----------
    notes : list of str
        Differences between the files that do no harm.

    Raises
    ------
    InputError
        If the file is missing, damaged, or lacks ``<bos>`` and ``<eos>``; or if two files give one id to different
        pieces.
    """

    def __init__(self, path):
        path = pathlib.Path(path)
        folder = path if path.is_dir() else None
        if folder:
            path = folder / (JSON if (folder / JSON).exists() and not (folder / MODEL).exists() else MODEL)
        self.path = os.fspath(path)
        if not os.path.isfile(path):
            raise InputError(f"no tokenizer at '{path}': text in or out needs the checkpoint's {MODEL} or {JSON}")
        self.pieces = JsonPieces(path) if path.suffix == ".json" else _read_model(path)
        self.bos, self.eos = self.pieces.piece_to_id("<bos>"), self.pieces.piece_to_id("<eos>")
        if self.pieces.unk_id() in (self.bos, self.eos):
            raise InputError(f"'{path}' has no pieces <bos> and <eos>: this is not PaliGemma's tokenizer")
        added, self.notes = _additions(folder, self.pieces) if folder and path.name == MODEL else ({}, [])
        self.added, self.matcher = added, Matcher(added.values())

    @property
    def size(self):
        """One more than the largest id that stands for a text."""
        return max([self.pieces.get_piece_size(), *(i + 1 for i in self.added)])

    def encode(self, text):
        """Return the ids of a text alone.

        Parameters
        ----------
        text : str

        Returns
        -------
        list of int
        """
        parts = self.matcher.split(text)
        return [i for part in parts for i in ([part] if isinstance(part, int) else self.pieces.encode(part))]

    def prompt(self, text):
        """Return the ids of PaliGemma's prompt: ``<bos>``, the text, a newline.

        Parameters
        ----------
        text : str
            What to do: ``caption en``, ``answer en how many cats``, ``detect cat ; dog``, ``segment cat``, ``ocr``, or
            nothing. ``<loc0000>``, ``<seg000>`` and added tokens are tokens in it. ``<image>`` is plain text, and so
            is ``<bos>`` to a ``tokenizer.model``; to a ``tokenizer.json``, as to Hugging Face, it is the token.

        Returns
        -------
        list of int

        Notes
        -----
        The newline is a token of its own, as in training. Hugging Face tokenises it together with the prompt, which
        differs only if the prompt itself ends in a newline.
        """
        # A command line can carry bytes that are no text; they become the replacement character.
        text = text.encode("utf-8", "replace").decode("utf-8")
        return [self.bos, *self.encode(text), *self.encode("\n")]

    def decode(self, ids):
        """Return the text of ids; control tokens such as ``<eos>`` have none.

        Parameters
        ----------
        ids : sequence of int

        Returns
        -------
        str
        """
        text = []
        try:
            for known, group in itertools.groupby(map(int, ids), lambda i: i < self.pieces.get_piece_size()):
                run = list(group)
                # An id between the last piece and an added token stands for nothing.
                text += [self.pieces.decode(run)] if known else [self.added[i].content for i in run if i in self.added]
            return "".join(text)
        except UnicodeDecodeError:
            raise InputError(f"'{self.path}' holds pieces that are no text: download it again") from None

    def decode_complete(self, ids):
        """Return the text of ids up to the last character that is complete.

        A character outside the vocabulary is spelt in several byte tokens; printing must wait for the last of them.

        Parameters
        ----------
        ids : sequence of int

        Returns
        -------
        str
        """
        end = len(ids)
        while end and self._is_byte(int(ids[end - 1])) and self.decode(ids[:end]).endswith("\ufffd"):
            end -= 1
        return self.decode(ids[:end])

    def _is_byte(self, i):
        return i < self.pieces.get_piece_size() and self.pieces.is_byte(i)


def open_tokenizer(path, rows):
    """Open a tokenizer and check that a model of so many embedding rows can use it.

    Parameters
    ----------
    path : str or os.PathLike
        As for `Tokenizer`.
    rows : int

    Returns
    -------
    Tokenizer

    Raises
    ------
    InputError
        As `Tokenizer`; and if it has more ids than the model has rows.
    """
    tokenizer = Tokenizer(path)
    if tokenizer.size > rows:
        raise InputError(
            f"the tokenizer in '{path}' has {tokenizer.size} pieces, but the model has only {rows} embedding rows: "
            f"take the {MODEL} or {JSON} that belongs to this checkpoint"
        )
    return tokenizer


def has_tokenizer(folder):
    """Return whether a folder holds a tokenizer file."""
    return any((pathlib.Path(folder) / name).exists() for name in (MODEL, JSON))


def _read_model(path):
    """Read a ``tokenizer.model``."""
    try:
        refuse_pointer(path)
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes() or b"empty")
    except InputError:
        raise
    except (RuntimeError, ValueError, OSError) as problem:
        raise InputError(f"'{path}' is not a SentencePiece model ({problem}): download it again") from None


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
