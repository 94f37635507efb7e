"""``swav cluster``: which cluster every picture belongs to, and how surely."""

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64
from sklearn.cluster import KMeans
from torch import Tensor

from swav.evals import Features
from swav.training.trained_run import load, open_pictures


def cluster(
    run: str | Path,
    data: str | None = None,
    *,
    to: str | Path | None = None,
    allow_factory: Collection[str] = (),
) -> Path:
    """Write the cluster of every readable picture, and its probability, to a CSV file.

    A picture's cluster is its nearest prototype; it does not depend on the other pictures.
    ``SOFT.npz`` beside it (same name) holds the probability of every cluster. A method without
    clusters of its own gets those of k-means on the features.

    Args:
        run: run folder.
        data: pictures; by default those of the training.
        to: CSV file; by default ``clusters.csv`` in the run folder.
        allow_factory: ``package.module:function`` that the run may name as its backbone.
    """
    opened = load(run, allow_factory=allow_factory)
    target = opened.folder / "clusters.csv" if to is None else Path(to)
    features = opened.features(open_pictures(opened, data))
    write_clusters(features, opened.probabilities(features.values), target)
    return target


def write_clusters(features: Features, probabilities: Tensor | None, path: Path) -> None:
    """Write path, cluster and probability of every picture; all probabilities beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if probabilities is None:
        assignment, certainty = _k_means(features)
    else:
        certainty, assignment = (part.numpy() for part in probabilities.max(dim=1))
        unfinished = path.with_name(f".{path.stem}.unfinished.npz")
        np.savez(unfinished, probabilities=probabilities.numpy().astype(np.float16))
        unfinished.replace(path.with_suffix(".npz"))
    _write_csv(features.names, assignment, certainty, path)


def _k_means(
    features: Features, most: int = 100
) -> tuple[Int64[np.ndarray, " images"], Float[np.ndarray, " images"]]:
    """Return k-means clusters of the normalised features, and the cosine to their centres."""
    values = features.values.numpy()
    values = values / np.linalg.norm(values, axis=1, keepdims=True).clip(min=1e-12)
    number = min(most, max(2, int(np.sqrt(len(values)))), len(values))
    fitted = KMeans(n_clusters=number, n_init=3, random_state=0).fit(values)
    centres = fitted.cluster_centers_[fitted.labels_]
    cosine = (values * centres).sum(axis=1) / np.linalg.norm(centres, axis=1)
    return fitted.labels_.astype(np.int64), cosine.clip(0, 1)


def _write_csv(
    names: Sequence[str],
    assignment: Int64[np.ndarray, " images"],
    certainty: Float[np.ndarray, " images"],
    path: Path,
) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "cluster", "probability"])
        for name, number, sure in zip(names, assignment, certainty, strict=True):
            writer.writerow([name, int(number), f"{sure:.6f}"])
    unfinished.replace(path)
