"""DeepCluster-v2: cluster all pictures between epochs, and predict the cluster of each.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
NeurIPS 2020, arXiv 2006.09882, appendix D, after "Deep Clustering for Unsupervised Learning of
Visual Features", ECCV 2018, arXiv 1807.05520. A memory bank keeps the embeddings that training
makes anyway; spherical k-means clusters them at the start of each epoch, and its centroids are
the prototypes of that epoch. So nothing has to be learnt anew when clusters are renumbered.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav.data.batch import Batch
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.nn.epoch_clusters import EpochClusters
from swav.nn.heads import HeadConfig, embed_views
from swav.nn.prototypes import Prototypes
from swav.ops.kmeans import spherical_kmeans
from swav.ops.losses import cluster_prediction

IMAGENET = 1_281_167
"""Pictures for which the paper has 3,000 clusters."""


@dataclass(frozen=True, kw_only=True)
class DeepClusterConfig(ObjectiveConfig):
    """DeepCluster-v2 (Caron et al., 2020): k-means over a memory bank at each epoch."""

    name: ClassVar[str] = "deepcluster"

    num_prototypes: tuple[int, ...] = ()
    """Clusters of each head, over which the loss is a mean; by default three heads whose number
    grows as the root of the number of pictures, up to the 3,000 of ImageNet."""
    num_banks: int = 2
    """Embeddings kept of each picture, one for each target view."""
    kmeans_iterations: int = 10
    head: HeadConfig = HeadConfig()
    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_clusters(self.num_prototypes, self.num_banks, self.temperature)

    def check(self, facts: TrainingFacts) -> list[str]:
        """Raise a ValueError if there are not enough pictures for the clusters."""
        numbers = resolved_prototypes(self.num_prototypes, facts.num_images)
        check_pictures(max(numbers), facts.num_images, facts.global_batch)
        return []

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "DeepCluster":
        """Return the objective around ``backbone``."""
        return DeepCluster(self, backbone, facts)


def check_clusters(num_prototypes: tuple[int, ...], num_banks: int, temperature: float) -> None:
    """Raise a ValueError for settings that no data could make sense of."""
    if num_prototypes and min(num_prototypes) < 2:
        raise ValueError(f"num_prototypes {num_prototypes}: every head needs at least 2")
    if num_banks < 1:
        raise ValueError(f"num_banks {num_banks} must be at least 1: one for each target view")
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} must be positive: the paper has 0.1")


def resolved_prototypes(num_prototypes: tuple[int, ...], num_images: int) -> tuple[int, ...]:
    """Return the clusters of each head; if none are given, three heads of a number by the root."""
    if num_prototypes:
        return num_prototypes
    number = round(3000 * math.sqrt(num_images / IMAGENET))
    return (min(3000, max(2, number)),) * 3


def check_pictures(most: int, num_images: int, global_batch: int) -> None:
    """Raise a ValueError for more clusters than pictures that the first pass sees."""
    num_seen = num_images // global_batch * global_batch
    if num_seen < most:
        raise ValueError(
            f"{most} prototypes for {num_seen} pictures: use --method.num-prototypes "
            f"{max(num_seen // 10, 2)} or so"
        )


class DeepCluster(Objective):
    """Prediction of the clusters of the epoch before."""

    def __init__(
        self, config: DeepClusterConfig, backbone: nn.Module, facts: TrainingFacts
    ) -> None:
        super().__init__(config)
        self.config = config
        self.backbone = backbone
        self.projector = config.head.build(facts.feature_dim)
        self.num_prototypes = resolved_prototypes(config.num_prototypes, facts.num_images)
        self.prototypes = Prototypes(config.head.embed_dim, self.num_prototypes).requires_grad_(
            False
        )
        self.clusters = EpochClusters(
            facts.num_images,
            config.head.embed_dim,
            num_prototypes=self.num_prototypes,
            num_banks=config.num_banks,
        )

    @property
    def encoder(self) -> nn.Module:
        """The backbone."""
        return self.backbone

    @torch.no_grad()
    def prepare(self, batches: Iterable[Batch]) -> None:
        """Fill the bank with embeddings of the untrained network, so that epoch 0 has clusters."""
        for batch in batches:
            self.clusters.remember(batch.indices, self.embed(batch)[: batch.num_targets])
            self.clusters.update_bank()

    @torch.no_grad()
    def before_epoch(self, clock: Clock) -> None:
        """Cluster the bank for each head; the centroids become its prototypes."""
        shares = []
        for head, weight in enumerate(self.prototypes.parameters()):
            centroids, nearest = spherical_kmeans(
                self.clusters.rows(head),
                self.clusters.start(head, epoch=clock.epoch),
                iterations=self.config.kmeans_iterations,
            )
            weight.copy_(centroids)
            shares.append(nearest)
        self.clusters.assign(shares)

    def forward(self, batch: Batch, _clock: Clock) -> StepOutput:
        """Return the cross-entropy of all views with the cluster of their picture."""
        embeddings = self.embed(batch)
        self.clusters.remember(batch.indices, embeddings[: batch.num_targets])
        assignments = self.clusters.of(batch.indices).to(embeddings.device)
        losses = [
            cluster_prediction(
                scores, assignment.repeat(len(batch.views)), temperature=self.config.temperature
            )
            for scores, assignment in zip(
                self.prototypes(embeddings.flatten(0, 1)), assignments, strict=True
            )
        ]
        ln_k = torch.tensor(self.num_prototypes).log().mean()
        return StepOutput(torch.stack(losses).mean(), {"ln_k": ln_k, **self.clusters.figures})

    def embed(self, batch: Batch) -> Float[Tensor, "views batch embed"]:
        """Return unit embeddings of all views."""
        return F.normalize(embed_views(self.backbone, self.projector, batch.views), dim=2)

    def before_step(self, _clock: Clock) -> None:
        """Start a step with nothing to remember."""
        self.clusters.forget()

    def after_step(self, _clock: Clock) -> None:
        """Put the embeddings of this step into the bank."""
        self.clusters.update_bank()

    def cluster(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch prototypes"]:
        """Return the softmax over the first head's centroids of the last epoch."""
        embeddings = self.projector(features)
        return self.prototypes.probabilities(embeddings, temperature=self.config.temperature)
