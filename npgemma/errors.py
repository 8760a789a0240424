"""The one exception that means "the input is wrong, the program is not"."""

from npgemma.files.foreign import shown


class InputError(ValueError):
    """An input that cannot be used.

    The message is written for that person: what was expected, what was found, what to do. The command line prints
    it as one sentence and exits with status 2. Whatever names and values it quotes, it is shown by
    `npgemma.files.foreign.shown`: it holds no control characters, and has an end.
    """

    def __init__(self, message: object) -> None:
        super().__init__(shown(message))
