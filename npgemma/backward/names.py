"""Which array of the forward pass a recorded gradient belongs to."""

import re


def forward_name(name, config):
    """Return the name of an array in a forward pass, from that of its gradient; None if no gradient has this name."""
    _, *path, variable = name.split("/")
    calls = [re.fullmatch(r"(\w+)_backward\.(\d+)", call) for call in path]
    if not calls or not all(calls) or variable[:1] != "d":
        return None
    layers = config.vision.layers if "encode_backward.0" in path else config.text.layers
    # Backwards the last block comes first.
    places = [layers - 1 - int(call[2]) if call[1] == "block" else call[2] for call in calls]
    return "/".join([*(f"{call[1]}.{place}" for call, place in zip(calls, places)), variable[1:]])
