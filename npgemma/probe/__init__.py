"""Stand inside the forward pass: record its arrays, replay it with others, exchange functions; no line of it knows."""

from npgemma.probe.calls import Probe, Statement
from npgemma.probe.exchange import exchanged
from npgemma.probe.following import enclosing, probing
from npgemma.probe.recording import record
from npgemma.probe.replay import replaying

__all__ = ["Probe", "Statement", "enclosing", "exchanged", "probing", "record", "replaying"]
