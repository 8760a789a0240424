"""Stand inside the forward pass: record its arrays, replay it with others, exchange functions; no line of it knows."""

from npgemma.probe.recording import record

__all__ = ["record"]
