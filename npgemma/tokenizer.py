"""Text to token ids and back: SentencePiece, with PaliGemma's prompt around it.

A model knows a fixed list of *pieces* (subwords), each with a row of its embedding table. Frequent words are one piece,
rarer ones are put together from several ("segment" + "ation"), and what no piece covers is spelt in bytes: so a list of
finite length can write any text, and common text is short.

The vocabulary (published models): 256000 pieces of Gemma's, then ``<loc0000>`` to ``<loc1023>`` for coordinates and
``<seg000>`` to ``<seg127>`` for masks. To the model these are ordinary rows, learned like words: nothing in the decoder
knows that ``<loc0100>`` lies beside ``<loc0101>``. Images have no token here: their vectors are put in front of the
text's.
"""

import os

import sentencepiece

from npgemma.errors import InputError


class Tokenizer:
    """A SentencePiece model with the ids that PaliGemma needs.

    Parameters
    ----------
    path : str or os.PathLike
        A ``tokenizer.model``.

    Raises
    ------
    InputError
        If the file is missing, damaged, or lacks ``<bos>`` and ``<eos>``.
    """

    def __init__(self, path):
        self.path = path = os.fspath(path)
        if not os.path.isfile(path):
            raise InputError(f"no tokenizer at '{path}': text in or out needs the checkpoint's tokenizer.model")
        try:
            with open(path, "rb") as file:
                self.pieces = sentencepiece.SentencePieceProcessor(model_proto=file.read() or b"empty")
            self.bos, self.eos = self.pieces.piece_to_id("<bos>"), self.pieces.piece_to_id("<eos>")
        except (RuntimeError, ValueError, OSError) as problem:
            raise InputError(f"'{path}' is not a SentencePiece model ({problem}): download it again") from None
        if self.pieces.unk_id() in (self.bos, self.eos):
            raise InputError(f"'{path}' has no pieces <bos> and <eos>: this is not PaliGemma's tokenizer")

    @property
    def size(self):
        """Number of pieces: every id below it can be written as text, none above."""
        return self.pieces.get_piece_size()

    def prompt(self, text):
        """Return the ids of PaliGemma's prompt: ``<bos>``, the text, a newline.

        Parameters
        ----------
        text : str
            What to do: ``caption en``, ``answer en how many cats``, ``detect cat ; dog``, ``segment cat``, ``ocr``, or
            nothing. ``<loc0000>`` and ``<seg000>`` are tokens in it; ``<image>`` and ``<bos>`` are plain text.

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
        return [self.bos, *self.pieces.encode(text), *self.pieces.encode("\n")]

    def decode(self, ids):
        """Return the text of ids; control tokens such as ``<eos>`` have none.

        Parameters
        ----------
        ids : sequence of int

        Returns
        -------
        str
        """
        try:
            return self.pieces.decode([int(i) for i in ids])
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
        while end and self.pieces.is_byte(int(ids[end - 1])) and self.decode(ids[:end]).endswith("\ufffd"):
            end -= 1
        return self.decode(ids[:end])
