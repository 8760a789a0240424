"""``tokenizer.json``, the tokenizers library's format: byte-pair encoding (Gemma's) or a unigram model.

Both cut text into pieces of a fixed list. *Byte-pair encoding* starts from characters and joins the two neighbours that
come first in a list of merges, again and again. A *unigram model* has a log probability for every piece and takes the
cut whose sum is highest. A character that no piece holds is spelt in bytes (``<0xE2>``).
"""

import dataclasses
import heapq
import math
import re

from npgemma.errors import InputError
from npgemma.files.added_tokens import Matcher, check_id, read_tokens
from npgemma.files.reading import read_json

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Tokens that are written as nothing.
CONTROL = "<pad>", "<eos>", "<bos>", "<unk>"
# How much less likely than the least likely piece an unknown character is, in the tokenizers library as in
# SentencePiece.
UNKNOWN_PENALTY = 10.0


class JsonPieces:
    """The tokenizer of a ``tokenizer.json``, with the methods of a ``SentencePieceProcessor`` that npgemma calls.

    InputError if the file is damaged, or describes a tokenizer of another kind.
    """

    def __init__(self, path):
        self.path = path
        document = read_json(path)
        model = document.get("model") if isinstance(document, dict) else None
        kind = model.get("type") if isinstance(model, dict) else None
        # Old files name no type; only byte-pair encoding has merges.
        kind = "BPE" if kind is None and isinstance(model, dict) and "merges" in model else kind
        if not isinstance(kind, str) or kind not in MODELS:
            self._refuse("model", kind, " or ".join(MODELS))
        self.replacements = self._replacements(document.get("normalizer"))
        self._check_pre_tokenizer(document.get("pre_tokenizer"))
        self.written = self._decoder(document.get("decoder"))
        self.model = MODELS[kind](model, path)
        added = read_tokens(document.get("added_tokens") or [], path)
        self.ids = self.model.ids | {token.content: token.id for token in added}
        # A piece without an added token of its id goes first, so that the added token's text is the one that stands.
        self.pieces = {i: piece for piece, i in self.ids.items()} | {token.id: token.content for token in added}
        self.added = Matcher(token for token in added if not token.normalized)
        self.normalized = Matcher(_normalized(token, self.normalize) for token in added if token.normalized)
        self.size = max(self.pieces, default=-1) + 1

    def encode(self, text):
        """Return the ids of a text."""
        ids = []
        for part in self.added.split(text):
            if isinstance(part, int):
                ids.append(part)
                continue
            for inner in self.normalized.split(self.normalize(part)):
                ids += [inner] if isinstance(inner, int) else self.model.encode(inner)
        return ids

    def decode(self, ids):
        """Return the text of ids; bytes that are no character are written as the replacement character each."""
        text, waiting = [], []
        for i in [*ids, None]:
            if i is not None and self.is_byte(i):
                waiting.append(int(self.pieces[i][3:5], 16))
                continue
            text.append(_characters(bytes(waiting)))
            waiting = []
            piece = self.pieces.get(i, "")
            for pattern, content in self.written:
                piece = piece.replace(pattern, content)
            text.append("" if piece in CONTROL else piece)
        return "".join(text)

    def normalize(self, text):
        """Return a text as the model cuts it: with Gemma, every space as ``▁``."""
        for pattern, content in self.replacements:
            text = text.replace(pattern, content)
        return text

    def get_piece_size(self):
        """Return the number of ids, which is one more than the largest."""
        return self.size

    def piece_to_id(self, piece):
        """Return a piece's id, or that of the unknown piece."""
        return self.ids.get(piece, self.unk_id())

    def id_to_piece(self, i):
        """Return an id's piece; empty if it has none."""
        return self.pieces.get(i, "")

    def is_byte(self, i):
        """Return whether an id stands for a byte."""
        return BYTE.fullmatch(self.pieces.get(i, "")) is not None

    def unk_id(self):
        """Return the id of the unknown piece."""
        return self.model.unknown if self.model.unknown is not None else -1

    def _replacements(self, part):
        """Return what is replaced by what, of a normalizer or decoder that only replaces."""
        parts = part.get("normalizers") if isinstance(part, dict) and part.get("type") == "Sequence" else [part]
        parts = parts if isinstance(parts, list) else [parts]
        return [self._replace("normalizer", step) for step in parts if step is not None]

    def _replace(self, what, step):
        pattern = step.get("pattern") if isinstance(step, dict) and step.get("type") == "Replace" else None
        found = pattern.get("String") if isinstance(pattern, dict) else None
        if not isinstance(found, str) or not found or not isinstance(step.get("content"), str):
            self._refuse(what, step.get("type") if isinstance(step, dict) else step, "Replace of a plain text")
        return found, step["content"]

    def _check_pre_tokenizer(self, part):
        """Refuse a pre-tokenizer that would cut anything: Gemma's cuts at spaces, which the normalizer has replaced."""
        if part is None:
            return
        pattern = part.get("pattern") if isinstance(part, dict) and part.get("type") == "Split" else None
        text = pattern.get("String") if isinstance(pattern, dict) else None
        if not isinstance(text, str) or not text or self.normalize(text) == text:
            kind = part.get("type") if isinstance(part, dict) else part
            self._refuse("pre_tokenizer", kind, "none, or Split at spaces")

    def _decoder(self, part):
        steps = part.get("decoders") if isinstance(part, dict) and part.get("type") == "Sequence" else [part]
        steps = steps if isinstance(steps, list) else [steps]
        known = [step.get("type") if isinstance(step, dict) else step for step in steps]
        for kind in known:
            if not isinstance(kind, str) or kind not in ("Replace", "ByteFallback", "Fuse"):
                self._refuse("decoder", kind, "Replace, ByteFallback and Fuse")
        return [self._replace("decoder", step) for step in steps if step["type"] == "Replace"]

    def _refuse(self, what, found, expected):
        raise InputError(
            f"'{self.path}' has a {what} of type {found!r:.80}, npgemma reads {expected}: this is not PaliGemma's "
            "tokenizer"
        )


class Unigram:
    """A unigram model, from ``model`` of the file: the most probable cut of a text into pieces."""

    def __init__(self, document, path):
        vocabulary = document.get("vocab")
        self.unknown = document.get("unk_id")
        if not isinstance(vocabulary, list) or not vocabulary or not all(map(_is_scored, vocabulary)):
            raise InputError(f"'{path}': 'vocab' should list pieces with their scores: download it again")
        whole = isinstance(self.unknown, int) and not isinstance(self.unknown, bool)
        if not whole or not 0 <= self.unknown < len(vocabulary):
            raise InputError(f"'{path}': 'unk_id' should be the id of a piece, found {self.unknown!r:.80}")
        self.ids = {piece: i for i, (piece, _) in enumerate(vocabulary)}
        self.scores = {piece: float(vocabulary[i][1]) for piece, i in self.ids.items()}
        self.longest = max(map(len, self.scores))
        self.unknown_score = min(float(score) for _, score in vocabulary) - UNKNOWN_PENALTY
        self.spells = document.get("byte_fallback") is True

    def encode(self, text):
        """Return the ids of a text: Viterbi's algorithm over the places between characters."""
        # For the best cut of the text up to each place: its score, and where its last piece begins and whether that is
        # an unknown character.
        best = [(0.0, 0, False)] + [(-math.inf, 0, False)] * len(text)
        for start in range(len(text)):
            score, known = best[start][0], False
            for stop in range(start + 1, min(start + self.longest, len(text)) + 1):
                piece = self.scores.get(text[start:stop])
                if piece is not None:
                    known = known or stop == start + 1
                    if score + piece > best[stop][0]:
                        best[stop] = score + piece, start, False
            if not known and score + self.unknown_score > best[start + 1][0]:
                best[start + 1] = score + self.unknown_score, start, True
        pieces, stop = [], len(text)
        while stop:
            _, start, unknown = best[stop]
            # Unknown characters in a row are one unknown piece.
            if unknown and pieces and pieces[-1][1]:
                pieces[-1] = text[start:stop] + pieces[-1][0], True
            else:
                pieces.append((text[start:stop], unknown))
            stop = start
        return [i for piece, _ in reversed(pieces) for i in self._ids(piece)]

    def _ids(self, piece):
        if piece in self.ids:
            return [self.ids[piece]]
        spelt = _spelt(piece, self.ids) if self.spells else None
        return [self.unknown] if spelt is None else spelt


class BytePairs:
    """Byte-pair encoding, from ``model`` of the file: neighbours are joined in the order of the merges."""

    def __init__(self, document, path):
        self.path, vocabulary, merges = path, document.get("vocab"), document.get("merges")
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if document.get(name):
                raise InputError(f"'{path}' has {name} {document[name]!r:.80}: this is not PaliGemma's tokenizer")
        if not isinstance(vocabulary, dict) or not isinstance(merges, list):
            raise InputError(f"'{path}' should hold an object 'vocab' and a list 'merges': download it again")
        self.ids = {piece: check_id(i, path) for piece, i in vocabulary.items()}
        try:
            # Two spellings: "a b", and since transformers 4.45 ["a", "b"].
            pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else (merge[0], merge[1]) for merge in merges]
            self.ranks = {(left, right): rank for rank, (left, right) in enumerate(pairs)}
        except (TypeError, ValueError, IndexError, KeyError):
            raise InputError(f"'{path}': each of 'merges' should be a pair of pieces: download it again") from None
        self.unknown_piece = document.get("unk_token")
        self.unknown = self.ids.get(self.unknown_piece) if isinstance(self.unknown_piece, str) else None
        self.spells, self.fuses = document.get("byte_fallback") is True, document.get("fuse_unk") is True
        self.whole_first = document.get("ignore_merges") is True

    def encode(self, text):
        """Return the ids of a text."""
        if self.whole_first and text in self.ids:
            return [self.ids[text]]
        try:
            return [self.ids[piece] for piece in self._joined(self._characters(text))]
        except KeyError as problem:
            raise InputError(f"'{self.path}' merges to {problem}, which is no piece: download it again") from None

    def _characters(self, text):
        """Return a text's characters as pieces; one outside the vocabulary in bytes, or as the unknown piece."""
        pieces = []
        for character in text:
            spelt = [character] if character in self.ids else None
            if spelt is None and self.spells:
                spelt = [f"<0x{byte:02X}>" for byte in character.encode()]
                spelt = spelt if all(piece in self.ids for piece in spelt) else None
            if spelt is not None:
                pieces += spelt
            elif self.unknown is not None and not (self.fuses and pieces and pieces[-1] == self.unknown_piece):
                pieces.append(self.unknown_piece)
        return pieces

    def _joined(self, pieces):
        """Join neighbours, the pair of the lowest rank first and of equal ranks the leftmost."""
        after = [*range(1, len(pieces)), -1]
        before = list(range(-1, len(pieces) - 1))
        waiting = []

        def offer(left):
            """Note the pair that begins at a place, if it can be joined."""
            if left >= 0 and after[left] >= 0:
                pair = pieces[left], pieces[after[left]]
                if pair in self.ranks:
                    heapq.heappush(waiting, (self.ranks[pair], left, pair))

        for left in range(len(pieces)):
            offer(left)
        while waiting:
            _, left, pair = heapq.heappop(waiting)
            right = after[left]
            # One of the two may have been joined to another since.
            if pieces[left] is None or right < 0 or (pieces[left], pieces[right]) != pair:
                continue
            pieces[left], pieces[right] = "".join(pair), None
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            offer(before[left])
            offer(left)
        return [piece for piece in pieces if piece is not None]


MODELS = {"BPE": BytePairs, "Unigram": Unigram}


def _is_scored(entry):
    return (
        isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
        and isinstance(entry[1], (int, float)) and math.isfinite(entry[1])
    )  # fmt: skip


def _spelt(piece, ids):
    """Return the ids of a piece's bytes, or None if one has none."""
    spelt = [ids.get(f"<0x{byte:02X}>") for byte in piece.encode()]
    return None if None in spelt else spelt


def _characters(content):
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "\ufffd" * len(content)


def _normalized(token, normalize):
    return dataclasses.replace(token, content=normalize(token.content))
