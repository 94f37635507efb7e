"""What features of labelled pictures are worth: neighbours, a linear probe, clusters."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import normalized_mutual_info_score
from torch import nn

from swav.evals import (
    Features,
    KNNConfig,
    LinearConfig,
    clusters,
    knn,
    linear,
)
from swav.evals.harness.splits import labels_of
from swav.evals.harness.subject import Clusters, centres_of, nearest_centre
from swav.ops.metrics import hungarian_matches

KMEANS_STARTS = 5

Scores = dict[str, float]


class Made(NamedTuple):
    """Features of both parts, and the seconds that they took."""

    fit: Features
    score: Features
    seconds: float


def probes(made: Made) -> Scores:
    """Return what labels of one part say of the other."""
    return {
        "knn": knn.run(KNNConfig(k=(10,)), made.fit, made.score).metrics["top1_k10"],
        "linear": linear.run(LinearConfig(), made.fit, made.score).metrics["top1"],
    }


def by_kmeans(made: Made, seed: int) -> Scores:
    """Return the agreement of k-means with labels, as many clusters as classes."""
    number = len(np.unique(labels_of(made.score, task="starts")))
    model = clusters.kmeans(made.fit.values, number, restarts=KMEANS_STARTS, seed=seed)
    unit = nn.functional.normalize(made.score.values, dim=1).numpy()
    return agreement("kmeans", model.predict(unit), made.score)


def by_own(made: Made, own: Clusters | None, seed: int) -> Scores:
    """Return the same of the method's own clusters, nothing if it has none."""
    if own is None:
        return {}
    number = len(np.unique(labels_of(made.score, task="starts")))
    centres = centres_of(own, made.fit.values, number, seed=seed)
    return agreement("own", nearest_centre(own, made.score.values, centres).numpy(), made.score)


def agreement(of: str, assignment: np.ndarray, scored: Features) -> Scores:
    labels = labels_of(scored, task="starts")
    return {
        f"{of}_nmi": float(normalized_mutual_info_score(labels, assignment)),
        f"{of}_accuracy": hungarian_matches(assignment.astype(np.int64), labels) / len(labels),
    }
