"""``swav cluster``: which cluster every picture belongs to, and how surely."""

from collections.abc import Sequence
from pathlib import Path

from swav.training.trained_run import load


def cluster(
    run: str | Path,
    data: str | None = None,
    /,
    *,
    to: str | Path | None = None,
    device: str = "auto",
    allow_factory: Sequence[str] = (),
) -> Path:
    """Write the cluster of every readable picture, and its probability, to a CSV file.

    A picture's cluster is its nearest prototype; it does not depend on the other pictures.
    A file ``.npz`` of the same name beside it holds the 20 most probable clusters of each picture
    (arrays ``clusters``, ``probabilities``). A method without clusters of its own gets those of
    k-means on the features.

    Args:
        run: run folder.
        data: pictures; by default those of the training.
        to: CSV file; by default ``clusters.csv`` in the run folder.
        device: auto, cpu, cuda, mps, or one device such as cuda:1.
        allow_factory: ``package.module:function`` that the run may name as its backbone.
    """
    return load(run, device=device, allow_factory=allow_factory).cluster(data, to=to)
