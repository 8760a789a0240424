"""Another program, a *port*, beside the reference: its arrays, its logits, its inputs, and the mistakes it may have.

What a script needs is here by name; `npgemma.command.compare` and `npgemma.command.diagnose` use the same.
"""

from npgemma.porting.arrays import read_arrays
from npgemma.porting.comparing import compare
from npgemma.porting.name_map import Rule, read_map
from npgemma.porting.reference import Reference, from_model, from_trace

__all__ = ["Reference", "Rule", "compare", "from_model", "from_trace", "read_arrays", "read_map"]
