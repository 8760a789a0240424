"""progress.py: what a person at a terminal sees, and that nobody else sees anything."""

import io
import re
import sys

import pytest

import npgemma
import torch_ref
from npgemma.command.progress import Progress


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self):
        return True


def on_a_terminal(monkeypatch):
    """Replace stderr by a terminal, and the clock by one to which everything takes long; return the terminal.

    Called by the test itself: between a fixture and its test pytest puts a stderr of its own in place.
    """
    seconds = iter(range(10**6))
    monkeypatch.setattr("npgemma.command.progress.time.monotonic", lambda: 2 * next(seconds))
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


@pytest.mark.parametrize("load", [npgemma.load, torch_ref.load], ids=["numpy", "torch"])
def test_every_block_is_reported_until_the_first_token(monkeypatch, load):
    model, terminal = load(), on_a_terminal(monkeypatch)
    progress = Progress()

    def watch(generation):
        progress.end()

    with progress.layers(model.config):
        model.generate(npgemma.example_image(), max_new_tokens=3, watch=watch)
    shown = re.findall(r"(encoding the image|reading the prompt): (\d+) %", terminal.getvalue())
    vision, text = model.config.vision.layers, model.config.text.layers
    expected = [("encoding the image", str(100 * i // vision)) for i in range(vision)]
    assert shown == expected + [("reading the prompt", str(100 * i // text)) for i in range(text)]
    assert terminal.getvalue().endswith("\r\033[K")


def test_it_is_shown_beside_a_recording(monkeypatch):
    model, terminal = npgemma.load(), on_a_terminal(monkeypatch)
    with npgemma.record(only="*/mask_BTS") as trace, Progress().layers(model.config):
        model.generate(npgemma.example_image(), max_new_tokens=1)
    assert trace
    assert "reading the prompt" in terminal.getvalue()


def test_without_a_terminal_nothing_is_shown(capsys):
    progress = Progress()
    with progress.layers(npgemma.load().config):
        progress.note("something")
    assert capsys.readouterr() == ("", "")


def test_it_is_shown_after_a_second_on_a_terminal_alone(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("npgemma.command.progress.time.monotonic", lambda: clock[0])
    for stream, seconds, expected in (
        (Terminal(), 1.0, ""),
        (Terminal(), 1.01, "\r\033[Kreading: 66 %"),
        (io.StringIO(), 9.0, ""),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        clock[0] = 0.0
        progress = Progress()
        clock[0] = seconds
        progress.report("reading", 2, 3)
        assert stream.getvalue() == expected
        progress.clear()
        assert stream.getvalue() == expected + "\r\033[K" * bool(expected)
        progress.clear()
        assert stream.getvalue().count("\033") == 2 * bool(expected)
