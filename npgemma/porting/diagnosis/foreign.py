"""A port, as far as its trace tells: its arrays, its tokens, its dtype."""

import dataclasses

import numpy as np

from npgemma.errors import InputError


@dataclasses.dataclass(frozen=True)
class Port:
    """What is known of a port.

    Parameters
    ----------
    arrays : dict of str to array
        Under the names of `npgemma.record`.
    token_ids : list of int
        The answer's tokens, as the port chose or was given them.
    dtype : str
        That it calculates in: a key of `npgemma.porting.bounds.LARGEST`.
    """

    arrays: dict
    token_ids: list
    dtype: str = "float32"


def read_token_ids(arrays):
    """Return the answer's tokens, as the steps of a trace took them.

    Parameters
    ----------
    arrays : dict of str to array

    Returns
    -------
    list of int

    Raises
    ------
    InputError
        If a step is in the trace without its token.
    """
    steps = {int(name.split("/")[0].removeprefix("step.")) for name in arrays if name.startswith("step.")}
    ids = []
    for step in range(max(steps, default=-1) + 1):
        name = f"step.{step}/ids_BT"
        if name not in arrays:
            raise InputError(f"the trace has arrays of step {step} but not its token, {name}: write it too")
        ids.append(int(np.ravel(arrays[name])[0]))
    # The last token's choice is compared, whatever it is.
    return [*ids, 0]
