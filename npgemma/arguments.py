"""Arguments of the project's commands."""

import argparse

BAD_INPUT = 2


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def error(self, message):
        """Print the sentence and end."""
        self.exit(BAD_INPUT, f"error: {' '.join(message.split())}: see {self.prog} --help\n")
