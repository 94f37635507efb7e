"""How well clusters found without labels agree with labels.

The clusters are the method's own (prototypes) when it has them, and always also those of
spherical k-means on the features with as many clusters as there are classes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from jaxtyping import Int, Int64
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from swav.evals.features import Features
from swav.evals.result import Result
from swav.evals.splits import labels_of
from swav.evals.subject import Subject, assignment_of
from swav.ops.metrics import hungarian_matches, purity, wilson_interval


@dataclass(frozen=True, kw_only=True)
class ClustersConfig:
    """Agreement of clusters with labels: NMI, ARI, Hungarian accuracy."""

    name: ClassVar[str] = "clusters"
    needs_labels: ClassVar[bool] = True
    baselines: ClassVar[tuple[str, ...]] = ("random", "pixels")
    num_clusters: int | None = None
    """Of k-means; None: as many as there are classes."""
    restarts: int = 5
    """Starts of k-means, the tightest of which is kept (labels play no part in that)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_clusters is not None and self.num_clusters < 2:
            raise ValueError(f"num_clusters {self.num_clusters} must be 2 or more, or None")
        if self.restarts < 1:
            raise ValueError(f"restarts {self.restarts} must be 1 or more")

    def evaluate(self, subject: Subject) -> Result:
        """Return the result of ``run`` on a subject's features."""
        features, clusters = subject.scored, subject.clusters
        own = None if clusters is None else assignment_of(clusters, features.values)
        return run(self, features, own)


def run(
    config: ClustersConfig, features: Features, assignment: Int[Tensor, " images"] | None = None
) -> Result:
    """Return ``nmi``, ``ari``, ``accuracy`` and ``purity``, and the same of k-means.

    Without ``assignment`` (the method's own clusters) the first four are those of k-means.

    Raises:
        ValueError: if labels are missing or there are fewer pictures than clusters.
    """
    labels = labels_of(features, task="clusters")
    num_classes = len(np.unique(labels))
    num_clusters = config.num_clusters or num_classes
    if num_clusters > len(labels):
        raise ValueError(
            f"{num_clusters} clusters of {len(labels)} pictures: set num_clusters to fewer"
        )
    by_kmeans = kmeans(features, num_clusters, restarts=config.restarts, seed=config.seed)
    own = by_kmeans if assignment is None else assignment.numpy()
    metrics, intervals = _agreement(own, labels)
    kmeans_metrics, kmeans_intervals = _agreement(by_kmeans, labels)
    return Result(
        task="clusters",
        protocol=_protocol(config, num_clusters),
        metrics=metrics | {f"kmeans_{metric}": value for metric, value in kmeans_metrics.items()},
        intervals=intervals
        | {f"kmeans_{metric}": ends for metric, ends in kmeans_intervals.items()},
        seeds=(config.seed,),
        counts={
            "score": len(labels),
            "classes": num_classes,
            "clusters": len(np.unique(own)),
            "kmeans_clusters": num_clusters,
            "features": features.values.shape[1],
        },
        details={"clusters_of": "k-means" if assignment is None else "the method"},
    )


def kmeans(
    features: Features, num_clusters: int, *, restarts: int, seed: int
) -> Int64[np.ndarray, " images"]:
    """Return the cluster of every picture: k-means on L2-normalised features."""
    values = F.normalize(features.values, dim=1).numpy()
    model = KMeans(num_clusters, n_init=restarts, random_state=seed)
    assignment: Int64[np.ndarray, " images"] = model.fit_predict(values).astype(np.int64)
    return assignment


def _protocol(config: ClustersConfig, num_clusters: int) -> dict[str, Any]:
    return {
        "kmeans": f"{num_clusters} clusters of L2-normalised features, "
        f"tightest of {config.restarts} starts",
        "accuracy": "clusters and classes matched one to one (Hungarian)",
        "nmi": "arithmetic mean of the entropies",
    }


def _agreement(
    assignment: Int[np.ndarray, " images"], labels: Int64[np.ndarray, " images"]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return the four measures, and the intervals of those that are shares."""
    matches = hungarian_matches(assignment, labels)
    metrics = {
        "nmi": float(normalized_mutual_info_score(labels, assignment)),
        "ari": float(adjusted_rand_score(labels, assignment)),
        "accuracy": matches / len(labels),
        "purity": purity(assignment, labels),
    }
    return metrics, {"accuracy": wilson_interval(matches, len(labels))}
