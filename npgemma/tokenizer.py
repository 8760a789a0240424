"""Text to token ids and back, with PaliGemma's prompt around it: the checkpoint's tokenizer.model or tokenizer.json.

A model knows a fixed list of *pieces* (subwords), each with a row of its embedding table. Frequent words are one piece,
rarer ones are put together from several ("segment" + "ation"), and what no piece covers is spelt in bytes: so a list of
finite length can write any text, and common text is short. Two ways to cut a text are in use. Gemma's list has an order
of *merges*: starting from letters, the two neighbours whose merge comes first are joined, again and again. (Merges were
found in a large text, each the most frequent pair of its turn.) The embedded checkpoint's list has the logarithm of a
probability for each piece, and the cut with the largest sum is taken. ``docs/by_hand.md`` cuts words in both ways.

The vocabulary (published models): the 256000 pieces of Gemma, then ``<loc0000>`` to ``<loc1023>`` for coordinates and
``<seg000>`` to ``<seg127>`` for masks. To the model these are ordinary rows, learned like words: nothing in the decoder
knows that ``<loc0100>`` lies beside ``<loc0101>`` (`npgemma.answer.fraction` says how it learns). Image tokens are no
pieces and have no ids: they are vectors, put in front of the text's.

*Next:* ``rope.py``. *Skip on a first reading:* the class, but for its ``prompt``.
"""

import itertools
import os
from collections.abc import Iterable, Sequence

from npgemma.errors import InputError
from npgemma.files.added_tokens import LONGEST, Matcher
from npgemma.files.tokenizer_files import JSON, MODEL, read_pieces

# Steps that cutting a text may take, where each of its letters takes as many as the longest piece has letters.
MOST_STEPS = 2**23


class Tokenizer:
    """The pieces of a tokenizer file with the ids that PaliGemma needs, and the tokens that a fine-tune added.

    Parameters
    ----------
    path : str or os.PathLike
        A ``tokenizer.model`` (of the library SentencePiece), a ``tokenizer.json``, or a folder with either. In a folder
        with both, ``tokenizer.model`` encodes, and the other files of the folder add their tokens.

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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.pieces, self.added, self.notes = read_pieces(path)
        self.bos, self.eos = self.pieces.piece_to_id("<bos>"), self.pieces.piece_to_id("<eos>")
        if self.pieces.unk_id() in (self.bos, self.eos):
            raise InputError(f"'{self.path}' has no pieces <bos> and <eos>: this is not PaliGemma's tokenizer")
        self.matcher = Matcher(self.added.values())
        longest = max(map(len, [*self.pieces.all_pieces().values(), *self.matcher.tokens]))
        if longest > LONGEST:
            raise InputError(f"'{self.path}' has a piece of {longest} letters: this is not PaliGemma's tokenizer")
        # Letters; no published model's context holds a text as long.
        self.most = MOST_STEPS // max(64, round(longest * self.pieces.growth))

    @property
    def size(self) -> int:
        """One more than the largest id that stands for a text."""
        return int(max([self.pieces.get_piece_size(), *(i + 1 for i in self.added)]))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text alone.

        Parameters
        ----------
        text : str

        Returns
        -------
        list of int

        Raises
        ------
        InputError
            If the text is far too long for a prompt.
        """
        # A command line can carry bytes that are no text; they become a question mark.
        text = text.encode("utf-8", "replace").decode("utf-8")
        if len(text) > self.most:
            raise InputError(
                f"a text of {len(text)} letters is too long for a prompt: shorten it to {self.most} at most"
            )
        parts = self.matcher.split(text)
        return [i for part in parts for i in ([part] if isinstance(part, int) else self.pieces.encode(part))]

    def prompt(self, text: str) -> list[int]:
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
        The newline tells the model that the prompt has ended and the answer begins: in training it stood before every
        answer. It is a token of its own. Hugging Face tokenises it together with the prompt, which differs only if the
        prompt itself ends in a newline.

        Examples
        --------
        The embedded checkpoint's list has whole words of its world and letters for all others; a word's piece begins
        with its space, which is written as ``▁``.

        >>> from npgemma import embedded_checkpoint
        >>> tokenizer = Tokenizer(embedded_checkpoint())
        >>> tokenizer.prompt("detect red cat")
        [2, 269, 277, 347, 473, 289, 477, 5]
        >>> [tokenizer.pieces.id_to_piece(i) for i in tokenizer.encode("detect red cat")]
        ['detect', '▁red', '▁', 'c', 'a', 't']
        """
        return [self.bos, *self.encode(text), *self.encode("\n")]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; control tokens such as ``<eos>`` have none.

        Parameters
        ----------
        ids : sequence of int

        Returns
        -------
        str
        """
        text = []
        for known, group in itertools.groupby(map(int, ids), lambda i: 0 <= i < self.pieces.get_piece_size()):
            run = list(group)
            # An id that no piece and no added token has stands for nothing.
            text += [self.pieces.decode(run)] if known else [self.added[i].content for i in run if i in self.added]
        return "".join(text)

    def decode_complete(self, ids: Sequence[int]) -> str:
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

    def _is_byte(self, i: int) -> bool:
        return 0 <= i < self.pieces.get_piece_size() and bool(self.pieces.is_byte(i))


def open_tokenizer(path: str | os.PathLike[str], rows: int) -> Tokenizer:
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
