"""The training log as a picture (needs matplotlib: ``pip install '.[figures]'``)."""

import json


def plot(log, out):
    """Draw from ``training_log.jsonl`` a PNG of each phase's loss, and what came out right on the validation scenes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure, axes = pyplot.subplots(1, 4, figsize=(18, 4.5), layout="constrained")
    for kind, axis in zip(("codebook", "tower", "model"), axes):
        steps = [entry for entry in entries if entry["phase"].startswith(kind)]
        axis.plot(all_steps(steps), [entry["loss"] for entry in steps], linewidth=0.8)
        axis.set(title=f"{kind}: loss", xlabel="step", yscale="log")
    checks = [entry for entry in entries if entry["phase"] == "validation"]
    axes[3].set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
    for task in [name for name in checks[-1] if name not in ("phase", "step")] if checks else []:
        axes[3].plot(all_steps(checks), [entry[task] for entry in checks], label=task)
    axes[3].set(title="model: right on validation scenes", xlabel="step", ylim=(0, 1.02))
    axes[3].legend(fontsize=7, loc="lower right")
    figure.savefig(out, format="png", dpi=80)
    pyplot.close(figure)


def all_steps(entries):
    """Return the steps of entries, those of a later round counted on from the last of the round before.

    >>> all_steps([{"step": 500}, {"step": 800}, {"step": 500}])
    [500, 800, 1300]
    """
    found, before, last = [], 0, 0
    for entry in entries:
        before += last if entry["step"] < last else 0
        last = entry["step"]
        found.append(before + last)
    return found
