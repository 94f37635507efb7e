"""Which cluster each picture belongs to: the method's own, or those of k-means on its features."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from swav.engine import Objective
from swav.evals.harness.subject import Clusters
from swav.nn.prototypes import Prototypes
from swav.run_folder.clusterings import PROTOTYPES

KEPT = 20
"""Most probable clusters that are kept of each picture: all 3,000 of ImageNet would be 8 GB."""
ROWS = 4096
MOST_KMEANS = 100
KMEANS = "k-means"


class Assignment(NamedTuple):
    """The clusters of every picture, the most probable first."""

    clusters: Int[np.ndarray, "images kept"]
    probabilities: Float[np.ndarray, "images kept"]
    clustering: str
    """Which one this is: ``prototypes``, ``k=12``, ``k-means`` of these very pictures."""
    network: str
    """Digest of the weights that it is of."""


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

    def embeddings(
        self, features: Float[Tensor, "images features"]
    ) -> Float[Tensor, "images embed"]:
        """Return the output of the projector, of unit length."""
        head = self.objective.cluster_head
        assert head is not None
        with _evaluation_mode(self.objective) as device:
            rows = [head.projector(some.to(device)).cpu() for some in torch.split(features, ROWS)]
        return F.normalize(torch.cat(rows).float(), dim=1)

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


def _cluster(
    objective: Objective, features: Float[Tensor, "images features"]
) -> Float[Tensor, "images prototypes"] | None:
    """Return ``Objective.cluster`` in evaluation mode."""
    with _evaluation_mode(objective) as device:
        return objective.cluster(features.to(device))


@contextmanager
def _evaluation_mode(objective: Objective) -> Iterator[torch.device]:
    """Yield the device of a method whose BatchNorm does not see other pictures meanwhile."""
    was_training = objective.training
    objective.eval()
    device = next(objective.encoder.parameters()).device
    objective.to(device)  # the encoder alone may have been moved
    with torch.no_grad():
        yield device
    objective.train(was_training)


def assign(objective: Objective, features: Float[Tensor, "images features"]) -> Assignment:
    """Return the clusters of pictures: the method's own, or those of k-means if it has none."""
    if clusters_of_method(objective) is not None:
        return assign_to_groups(objective, features)
    centres = fit_centres(features.numpy(), default_number(len(features)))
    return assign_to_centres(features, centres)._replace(network=network_digest(objective))


def assign_to_groups(
    objective: Objective,
    features: Float[Tensor, "images features"],
    ids: Int[np.ndarray, " prototypes"] | None = None,
) -> Assignment:
    """Return the clusters of pictures, whose probabilities are the sums of their prototypes'.

    Args:
        objective: a method with clusters.
        features: of the pictures.
        ids: the number of the cluster of each prototype; by default each is one.
    """
    own = clusters_of_method(objective)
    assert own is not None
    numbers, places = (None, None) if ids is None else np.unique(ids, return_inverse=True)
    best = []
    for rows in torch.split(features, ROWS):  # all clusters of a few pictures at a time
        probabilities = own.probabilities(rows)
        if numbers is not None:
            sums = probabilities.new_zeros(len(rows), len(numbers))
            probabilities = sums.index_add_(1, torch.from_numpy(places), probabilities)
        best.append(probabilities.topk(min(KEPT, probabilities.shape[1]), dim=1))
    clusters = torch.cat([top.indices for top in best]).numpy()
    return Assignment(
        clusters=clusters if numbers is None else numbers[clusters],
        probabilities=torch.cat([top.values for top in best]).numpy(),
        clustering=PROTOTYPES,
        network=network_digest(objective),
    )


def assign_to_directions(
    objective: Objective,
    features: Float[Tensor, "images features"],
    centres: Float[np.ndarray, "prototypes embed"],
    ids: Int[np.ndarray, " prototypes"],
) -> Assignment:
    """Return the clusters of pictures by unit centres in the space of a method's prototypes.

    Probabilities are the softmax of the cosines over the method's temperature, as of prototypes.
    """
    own, head = clusters_of_method(objective), objective.cluster_head
    assert own is not None
    assert head is not None
    directions, best = torch.from_numpy(centres), []
    for rows in torch.split(features, ROWS):
        probabilities = (own.embeddings(rows) @ directions.T / head.temperature).softmax(dim=1)
        best.append(probabilities.topk(min(KEPT, len(centres)), dim=1))
    return Assignment(
        clusters=ids[torch.cat([top.indices for top in best]).numpy()],
        probabilities=torch.cat([top.values for top in best]).numpy(),
        clustering=PROTOTYPES,
        network=network_digest(objective),
    )


def network_digest(objective: Objective) -> str:
    """Return a text that changes when the weights of a method do."""
    digest = blake2b(digest_size=16)
    for name, weight in objective.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def default_number(num_images: int) -> int:
    """Return how many clusters k-means makes of pictures when nobody says."""
    return min(MOST_KMEANS, max(2, int(np.sqrt(num_images))), num_images)


def fit_centres(
    values: Float[np.ndarray, "images features"], number: int
) -> Float[np.ndarray, "prototypes features"]:
    """Return the centres of k-means on the normalised features."""
    fitted = KMeans(n_clusters=number, n_init=3, random_state=0).fit(_normalised(values))
    return np.asarray(fitted.cluster_centers_)


def assign_to_centres(
    features: Float[Tensor, "images features"],
    centres: Float[np.ndarray, "prototypes features"],
    ids: Int[np.ndarray, " prototypes"] | None = None,
) -> Assignment:
    """Return the nearest centre of every picture, and the cosine to it as its probability."""
    values = _normalised(features.numpy())
    squares = (centres**2).sum(axis=1)
    nearest = np.concatenate(
        [
            (squares - 2 * values[start : start + ROWS] @ centres.T).argmin(axis=1)
            for start in range(0, len(values), ROWS)
        ]
    )
    cosine = (values * centres[nearest]).sum(axis=1) / np.linalg.norm(centres, axis=1)[nearest]
    return Assignment(
        clusters=(nearest if ids is None else ids[nearest])[:, None].astype(np.int64),
        probabilities=cosine.clip(0, 1)[:, None],
        clustering=KMEANS,
        network="",
    )


def _normalised(
    values: Float[np.ndarray, "images features"],
) -> Float[np.ndarray, "images features"]:
    lengths: np.ndarray = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = values / lengths.clip(min=1e-12)
    return unit
