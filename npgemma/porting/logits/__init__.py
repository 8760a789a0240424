"""Name a port's mistake from its logits alone: no hooks and no names are needed, and every port has them.

The model answers with the tokens that the port chose, once as it is and once with each known mistake. A mistake is
named only if the port is within rounding of it and twice as far from anything else: a mistake that is not in the
library does not get the name of the nearest one.
"""

from npgemma.porting.logits.answer_file import Answer, read_answer
from npgemma.porting.logits.decision import diagnose
from npgemma.porting.logits.distances import Comparison
from npgemma.porting.logits.question import Question

__all__ = ["Answer", "Comparison", "Question", "diagnose", "read_answer"]
