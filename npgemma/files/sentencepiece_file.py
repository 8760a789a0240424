"""``tokenizer.model``, SentencePiece's file: looked through before the library, which believes everything, reads it."""

import sentencepiece

from npgemma.files.added_tokens import LONGEST
from npgemma.files.reading import reading

# Fields of its message of Protocol Buffers: a piece, which repeats; rules that normalise text before and after, by a
# table of replacements; and texts that the library encodes as a test of itself.
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
            # Its warnings would go to the terminal past everything that escapes foreign text.
            sentencepiece.set_min_log_level(2)
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
    kept, done, count = [], 0, 0
    for number, begin, start, end in _fields(content):
        if number == PIECE:
            count += 1
            # A letter takes up to four bytes, and a piece's score and kind eight.
            if count > MOST_PIECES or end - start > 4 * LONGEST + 16:
                raise ValueError(f"it has more than {MOST_PIECES} pieces, or one of more than {LONGEST} letters")
        elif number == SELF_TEST:
            kept.append(content[done:begin])
            done = end
        elif number in RULES and any(n == TABLE and stop > first for n, _, first, stop in _fields(content[start:end])):
            raise ValueError("it normalises text, as PaliGemma's does not")
    return b"".join([*kept, content[done:]])


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
            end = {0: _number(content, start)[1], 1: start + 8, 5: start + 4}.get(key & 7, len(content) + 1)
        if end > len(content):
            raise ValueError("it is cut off or damaged")
        yield key >> 3, begin, start, end


def _number(content, place):
    """Return a number, seven bits in each byte and a last byte below 128, and the place after it."""
    value, shift, byte = 0, 0, 128
    while byte > 127 and shift < 70:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
    return value, place
