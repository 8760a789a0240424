"""How fast a model runs: its stages, this machine's limits, and runs of several programs in turn."""
