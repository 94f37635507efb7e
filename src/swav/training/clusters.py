"""Which cluster each picture belongs to: the method's own, or those of k-means on its features."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from swav.engine import Objective
from swav.evals import Features
from swav.evals.harness.subject import Clusters
from swav.nn.prototypes import Prototypes
from swav.run_folder.writers import write_cluster_probabilities, write_clusters

KEPT = 20
"""Most probable clusters that are kept of each picture: all 3,000 of ImageNet would be 8 GB."""
ROWS = 4096
MOST_KMEANS = 100


class Assignment(NamedTuple):
    """The clusters of every picture, the most probable first."""

    clusters: Int[np.ndarray, "images kept"]
    probabilities: Float[np.ndarray, "images kept"]


@dataclass(frozen=True)
class MethodClusters(Clusters):
    """The clusters of a trained method, as evaluations ask for them."""

    objective: Objective

    def probabilities(
        self, features: Float[Tensor, "images features"]
    ) -> Float[Tensor, "images prototypes"]:
        """Return ``Objective.cluster``, picture by picture the same."""
        rows = [_cluster(self.objective, rows) for rows in torch.split(features, ROWS)]
        return torch.cat(
            [probabilities.cpu() for probabilities in rows if probabilities is not None]
        )

    def prototypes(self) -> Float[Tensor, "prototypes embed"] | None:
        """Return the first head's prototypes, None if the method has no such thing."""
        for module in self.objective.modules():
            if isinstance(module, Prototypes):
                return next(module.parameters()).detach().cpu().float()
        return None


def clusters_of_method(objective: Objective) -> MethodClusters | None:
    """Return the clusters of a method, None if it has none."""
    nothing = torch.zeros(1, int(objective.encoder.num_features))  # type: ignore[arg-type]
    return None if _cluster(objective, nothing) is None else MethodClusters(objective)


@torch.no_grad()
def _cluster(
    objective: Objective, features: Float[Tensor, "images features"]
) -> Float[Tensor, "images prototypes"] | None:
    """Return ``Objective.cluster`` in evaluation mode: BatchNorm must not see other pictures."""
    was_training = objective.training
    objective.eval()
    device = next(objective.encoder.parameters()).device
    objective.to(device)  # the encoder alone may have been moved
    probabilities = objective.cluster(features.to(device))
    objective.train(was_training)
    return probabilities


def assign(objective: Objective, features: Float[Tensor, "images features"]) -> Assignment:
    """Return the clusters of pictures: the method's own, or those of k-means if it has none."""
    clusters = clusters_of_method(objective)
    if clusters is None:
        return _kmeans(features.numpy())
    best = []
    for rows in torch.split(features, ROWS):  # all clusters of a few pictures at a time
        probabilities = clusters.probabilities(rows)
        best.append(probabilities.topk(min(KEPT, probabilities.shape[1]), dim=1))
    return Assignment(
        clusters=torch.cat([top.indices for top in best]).numpy(),
        probabilities=torch.cat([top.values for top in best]).numpy(),
    )


def write_assignment(features: Features, assignment: Assignment, path: Path) -> None:
    """Write the best cluster of every picture as CSV, and those kept beside it as ``.npz``."""
    clusters, probabilities = assignment
    write_clusters(path, features.names, clusters[:, 0], probabilities[:, 0])
    if clusters.shape[1] > 1:
        write_cluster_probabilities(path.with_suffix(".npz"), clusters, probabilities)


def _kmeans(values: Float[np.ndarray, "images features"]) -> Assignment:
    """Return k-means clusters of the normalised features, and the cosine to their centres."""
    values = values / np.linalg.norm(values, axis=1, keepdims=True).clip(min=1e-12)
    number = min(MOST_KMEANS, max(2, int(np.sqrt(len(values)))), len(values))
    fitted = KMeans(n_clusters=number, n_init=3, random_state=0).fit(values)
    centres = fitted.cluster_centers_[fitted.labels_]
    cosine = (values * centres).sum(axis=1) / np.linalg.norm(centres, axis=1)
    return Assignment(fitted.labels_[:, None].astype(np.int64), cosine.clip(0, 1)[:, None])
