"""The training log as a picture (needs matplotlib: ``pip install '.[figures]'``)."""

import json


def plot(log, out):
    """Draw the loss of each phase, and what came out right on the validation scenes.

    Parameters
    ----------
    log : pathlib.Path
        ``training_log.jsonl``.
    out : file
        Open for writing a PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    phases = ("codebook", "tower", "model")
    figure, axes = pyplot.subplots(1, 4, figsize=(18, 4.5), layout="constrained")
    for phase, axis in zip(phases, axes):
        steps = [entry for entry in entries if entry["phase"] == phase]
        axis.plot([entry["step"] for entry in steps], [entry["loss"] for entry in steps], linewidth=0.8)
        axis.set(title=f"{phase}: loss", xlabel="step", yscale="log")
    checks = [entry for entry in entries if entry["phase"] == "validation"]
    for task in [name for name in checks[-1] if name not in ("phase", "step")] if checks else []:
        axes[3].plot([entry["step"] for entry in checks], [entry[task] for entry in checks], label=task)
    axes[3].set(title="model: right on validation scenes", xlabel="step", ylim=(0, 1.02))
    axes[3].legend(fontsize=7, loc="lower right")
    figure.savefig(out, format="png", dpi=80)
    pyplot.close(figure)
