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
from npgemma.files.added_tokens import TOKEN, Matcher, check_id, read_tokens
from npgemma.files.foreign import shown
from npgemma.files.reading import read_json
from npgemma.files.shapes import check

# Of the file; PaliGemma 2's has 34 MB.
MOST_BYTES = 50_000_000
# Steps of a normalizer or a decoder, and how many times as long they may make a text. PaliGemma's replaces spaces.
MOST_STEPS, MOST_GROWTH = 16, 4
STEP = {"type": str, "pattern": ({"String": (str, None)}, None), "content": (str, None)}
SHAPE = {
    "model": {"type": (str, None)}, "added_tokens": ([TOKEN | {"id": int}], None), "pre_tokenizer": (STEP, None),
    "normalizer": (STEP | {"normalizers": ([STEP], None)}, None),
    "decoder": (STEP | {"decoders": ([STEP], None)}, None),
}  # fmt: skip
SCORES = {"vocab": list, "unk_id": int, "byte_fallback": (bool, None)}
PAIRS = {
    "vocab": dict, "merges": list, "unk_token": (str, None), "byte_fallback": (bool, None), "fuse_unk": (bool, None),
    "ignore_merges": (bool, None),
}  # fmt: skip
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
        document = read_json(path, SHAPE, MOST_BYTES)
        model = document["model"]
        # Old files name no type; only byte-pair encoding has merges.
        kind = model.get("type") or ("BPE" if "merges" in model else None)
        if kind not in MODELS:
            self._refuse("model", kind, " or ".join(MODELS))
        self.replacements = self._replacements("normalizer", document, ("Replace",))
        self._check_pre_tokenizer(document.get("pre_tokenizer"))
        self.written = self._replacements("decoder", document, ("Replace", "ByteFallback", "Fuse"))
        self.growth = _growth(self.replacements)
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

    def all_pieces(self):
        """Return all pieces by id."""
        return self.pieces

    def is_byte(self, i):
        """Return whether an id stands for a byte."""
        return BYTE.fullmatch(self.pieces.get(i, "")) is not None

    def unk_id(self):
        """Return the id of the unknown piece."""
        return self.model.unknown if self.model.unknown is not None else -1

    def _replacements(self, what, document, kinds):
        """Return what is replaced by what, of a normalizer or decoder with steps of these kinds."""
        part = document.get(what)
        steps = part.get(what + "s") or [] if part and part["type"] == "Sequence" else [part] if part else []
        for step in steps:
            plain = (step.get("pattern") or {}).get("String") and step.get("content") is not None
            if step["type"] not in kinds or (step["type"] == "Replace" and not plain):
                self._refuse(what, step["type"], f"{', '.join(kinds)}, of plain texts")
        found = [(step["pattern"]["String"], step["content"]) for step in steps if step["type"] == "Replace"]
        if len(found) > MOST_STEPS or _growth(found) > MOST_GROWTH:
            raise InputError(
                f"'{self.path}' has a {what} of {len(found)} steps, which make a text up to {_growth(found):.3g} times "
                f"as long; npgemma reads {MOST_STEPS} and {MOST_GROWTH} times: this is not PaliGemma's tokenizer"
            )
        return found

    def _check_pre_tokenizer(self, part):
        """Refuse a pre-tokenizer that would cut anything: Gemma's cuts at spaces, which the normalizer has replaced."""
        text = (part.get("pattern") or {}).get("String") if part and part["type"] == "Split" else None
        if part and (not text or self.normalize(text) == text):
            self._refuse("pre_tokenizer", part["type"], "none, or Split at spaces")

    def _refuse(self, what, found, expected):
        raise InputError(
            f"'{self.path}' has a {what} of type {shown(found, 80)}, npgemma reads {expected}: this is not PaliGemma's "
            "tokenizer"
        )


class Unigram:
    """A unigram model, from ``model`` of the file: the most probable cut of a text into pieces."""

    def __init__(self, document, path):
        check(document, SCORES, f"'{path}': model")
        vocabulary, self.unknown = document["vocab"], document["unk_id"]
        if not all(map(_is_scored, vocabulary)):
            raise InputError(f"'{path}': 'vocab' should list pieces with their scores: download it again")
        if not 0 <= self.unknown < len(vocabulary):
            raise InputError(f"'{path}': 'unk_id' should be the id of a piece, found {self.unknown}")
        self.ids = {piece: i for i, (piece, _) in enumerate(vocabulary)}
        self.scores = {piece: float(vocabulary[i][1]) for piece, i in self.ids.items()}
        self.longest = max(map(len, self.scores))
        self.unknown_score = min(float(score) for _, score in vocabulary) - UNKNOWN_PENALTY
        self.spells = document.get("byte_fallback")

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
        check(document, PAIRS, f"'{path}': model")
        for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if document.get(name):
                found = shown(document[name], 80)
                raise InputError(f"'{path}' has {name} {found}: this is not PaliGemma's tokenizer")
        self.ids = {piece: check_id(i, path) for piece, i in document["vocab"].items()}
        try:
            # Two spellings: "a b", and since transformers 4.45 ["a", "b"].
            pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in document["merges"]]
            self.ranks = {(left, right): rank for rank, (left, right) in enumerate(pairs)}
            missing = [left + right for left, right in pairs if left + right not in self.ids]
        except (TypeError, ValueError):
            raise InputError(f"'{path}': each of 'merges' should be a pair of pieces: download it again") from None
        if missing:
            raise InputError(f"'{path}' merges to {shown(missing[0], 80)}, which is no piece: download it again")
        self.unknown_piece = document.get("unk_token")
        self.unknown = self.ids.get(self.unknown_piece)
        self.spells, self.fuses = document.get("byte_fallback"), document.get("fuse_unk")
        self.whole_first = document.get("ignore_merges")

    def encode(self, text):
        """Return the ids of a text."""
        if self.whole_first and text in self.ids:
            return [self.ids[text]]
        return [self.ids[piece] for piece in self._joined(self._characters(text))]

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


def _growth(steps):
    """Return how many times as long replacing one text after another can make a text."""
    return math.prod(max(1.0, len(content) / len(found)) for found, content in steps)


def _is_scored(entry):
    return (
        isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
        and isinstance(entry[1], (int, float)) and abs(entry[1]) < 1e30
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
