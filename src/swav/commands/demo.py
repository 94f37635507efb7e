"""``swav demo``: the whole job on the built-in pictures, on a CPU within minutes."""

from dataclasses import replace
from pathlib import Path

from swav.recipes import make_config
from swav.training.run import train
from swav.training.trained_run import TrainedRun


def demo(out: str | Path | None = None, seed: int = 0) -> TrainedRun:
    """Train on the built-in emoji and return the run, with ``report.html`` in its folder.

    Args:
        out: run folder; by default a new one under ``runs/``.
        seed: of the weights, the order of the pictures and the augmentation.
    """
    config = replace(make_config("demo"), seed=seed, device="cpu")
    return train("emoji", recipe="demo", out=out, config=config)
