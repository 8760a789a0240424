"""``tokenizer.model``, SentencePiece's file: looked through before the library, which believes everything, reads it.

It is one message of Protocol Buffers: field 1 is a piece, and repeats; 3 and 5 are rules by which text is normalised
before and after, of which field 2 are tables of replacements; 4 are texts that the library encodes as a test of itself.
"""

import sentencepiece

from npgemma.files.added_tokens import LONGEST
from npgemma.files.reading import reading

PIECE, RULES, SELF_TEST, TABLE = 1, (3, 5), 4, 2
# The published file has 4 MB and 257,152 pieces.
MOST_BYTES, MOST_PIECES = 50_000_000, 2**20


class ModelPieces(sentencepiece.SentencePieceProcessor):
    """The tokenizer of a ``tokenizer.model``; InputError if the file is damaged or absurd, or normalises text."""

    growth = 1

    def __init__(self, path):
        with reading(path, "a SentencePiece model as PaliGemma has it", "download it again"):
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES // 10**6} MB")
            super().__init__(model_proto=_without_test(path.read_bytes()) or b"empty")
            # This fails if one is no text.
            self.all_pieces()
            if len(self.decode([self.unk_id()])) > LONGEST:
                raise ValueError(f"it writes unknown characters as more than {LONGEST} letters")

    def all_pieces(self):
        """Return all pieces by id."""
        return dict(enumerate(self.id_to_piece(list(range(self.get_piece_size())))))


def _without_test(content):
    """Return a file's content without the texts that the library would encode at once."""
    kept, count = [], 0
    for number, begin, start, end in _fields(content):
        count += number == PIECE
        if count > MOST_PIECES:
            raise ValueError(f"it has more than {MOST_PIECES} pieces")
        # A letter takes up to four bytes, and a piece's score and kind eight.
        if number == PIECE and end - start > 4 * LONGEST + 16:
            raise ValueError(f"it has a piece of more than {LONGEST} letters")
        tables = number in RULES and [field for field in _fields(content[start:end]) if field[0] == TABLE]
        if any(last > first for _, _, first, last in tables or ()):
            raise ValueError("it normalises text, as PaliGemma's does not")
        if number != SELF_TEST:
            kept.append(content[begin:end])
    return b"".join(kept)


def _fields(content):
    """Yield the number of every field of a message, and where it and its value begin and where both end."""
    end = 0
    while end < len(content):
        begin = end
        key, start = _number(content, begin)
        if key & 7 == 2:
            length, start = _number(content, start)
            end = start + length
        else:
            end = {0: _number(content, start)[1], 1: start + 8, 5: start + 4}[key & 7]
        if end > len(content):
            raise ValueError("it is cut off")
        yield key >> 3, begin, start, end


def _number(content, place):
    """Return a number, seven bits in each byte, and the place after it."""
    value, shift = 0, 0
    while content[place] > 127 and shift < 63:
        value |= (content[place] & 127) << shift
        place, shift = place + 1, shift + 7
    return value | content[place] << shift, place + 1
