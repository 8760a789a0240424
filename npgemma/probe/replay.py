"""Run the reference with another program's arrays in place of its own, operation by operation.

While a replay runs, every statement of the forward pass that binds a named array is followed by a question: which array
should be used from here on? Whoever asks for the replay sees what the reference has calculated, may compare it with the
other program's array, and hands back either. Handing back the other program's array means that the next operation is
calculated from that program's own input, so that errors do not add up over the layers.
"""

import contextlib

from npgemma.probe.calls import Probe
from npgemma.probe.exchange import exchanged
from npgemma.probe.following import probing


@contextlib.contextmanager
def replaying(choose, changes=()):
    """Ask which array to use, wherever the NumPy reference binds a named one inside a ``with`` block.

    Parameters
    ----------
    choose : callable
        ``choose(name, computed, inside)`` returns the array to go on with. Names are those of `npgemma.record`.
        ``inside`` is None but for the result of an exchanged function: what the right function made, inside of the
        wrong one.
    changes : sequence of npgemma.probe.exchange.Changes, optional
        Mistakes to inject meanwhile. What a function that is exchanged returns is asked for as the wrong function
        returns it, and not as the right one inside of it does.
    """
    replay = _Replay(choose, {path.rpartition(".")[2] for each in changes for path in each})
    with contextlib.ExitStack() as stack:
        stack.enter_context(probing(replay))
        for each in changes:
            stack.enter_context(exchanged(each))
        yield


class _Replay(Probe):
    """Asks, and keeps what right functions inside of exchanged ones return."""

    def __init__(self, choose, exchanged):
        self.choose, self.exchanged, self.inside = choose, exchanged, {}

    def on_bind(self, name, value, statement):
        """Ask for an array, unless it is a result that is asked for outside."""
        if statement.is_result and statement.source.name in self.exchanged:
            self.inside[name] = value
            return value
        return self.choose(name, value, None)

    def on_exchanged(self, name, value, source):
        """Ask for what an exchanged function returns."""
        asked = source.name in self.exchanged
        return self.choose(name, value, self.inside.pop(name, None)) if asked else value
