"""What is a value cannot be changed: a configuration, an answer or a verdict can be handed on without a copy."""

import dataclasses
import importlib
import pkgutil

import conversion
import npgemma
import torch_ref

# These are filled in while functions run: by a probe, or by replays of a port.
FILLED_IN = {"Source", "Naming", "Call", "Place", "Kept", "Hypothesis"}


def test_data_classes_are_frozen_but_those_that_are_filled_in():
    changeable, count = set(), 0
    for package in (npgemma, torch_ref, conversion):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            module = None if found.name.endswith("__main__") else importlib.import_module(found.name)
            for value in vars(module).values() if module else ():
                if getattr(value, "__module__", "") == found.name and dataclasses.is_dataclass(value):
                    count += 1
                    changeable |= set() if value.__dataclass_params__.frozen else {value.__name__}
    assert changeable <= FILLED_IN
    assert count > 60
