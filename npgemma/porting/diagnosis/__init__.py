"""Name the mistakes of a port from its trace: its own arrays, each the input of the next operation.

Every operation is calculated again in float64 from the port's own inputs (`npgemma.probe.replay`) and compared with
what the port made of them: its *own error*. A right port's own errors are rounding (`npgemma.porting.bounds`). Then the
same is done under known mistakes, made in the reference: those of the functions that made the first wrong array, and
all if none of these explains it. A mistake is named if it leaves rounding, or a twentieth, of own errors and predicts
no error that the port does not have; so several mistakes at once do not hide each other, and one that nobody has
described is not taken for its nearest neighbour.

Some mistakes are smaller than rounding. They leave a trace all the same: rounding errors point anywhere, and theirs all
point the way in which the mistake would push. With e the own error and d the difference that the mistake would make,
``c = e.d / d.d``, pooled over all places, is near 1 if the mistake was made and near 0 if not; z is c in units of its
standard error.
"""

from npgemma.porting.diagnosis.naming import diagnose
from npgemma.porting.diagnosis.replays import Port, Replays

__all__ = ["Port", "Replays", "diagnose"]
