"""The one exception that means "the input is wrong, the program is not"."""


class InputError(ValueError):
    """An input that cannot be used.

    The message is written for that person: what was expected, what was found, what to do. The command line prints
    it as one sentence and exits with status 2.
    """
