"""What DeepCluster-v2 and SeLa-v2 share: predict the clusters that pictures got between epochs.

Caron et al., NeurIPS 2020, arXiv 2006.09882, appendix D. A memory bank keeps the embeddings that
training makes anyway. At the start of each epoch every picture gets one cluster from its rows, by
each head, and all its views have to predict that until the next.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from swav.config import check_ranges
from swav.data.batch import AnyBatch
from swav.engine.divergence import FEWER_PROTOTYPES
from swav.engine.objective import Clock, StepOutput, TrainingFacts
from swav.methods.projected import Projected, ProjectedConfig
from swav.nn.epoch_clusters import EpochClusters
from swav.nn.prototypes import ClusterHead, Prototypes
from swav.ops.losses import cluster_prediction

IMAGENET = 1_281_167
"""Pictures for which the paper has 3,000 clusters."""


@dataclass(frozen=True, kw_only=True)
class ClusterPredictionConfig(ProjectedConfig):
    """The settings that both methods have."""

    has_clusters: ClassVar[bool] = True
    learns_from_features: ClassVar[bool] = True
    collapse_remedies: ClassVar[tuple[str, ...]] = (FEWER_PROTOTYPES,)

    num_prototypes: tuple[int, ...] = ()
    """Clusters of each head, over which the loss is a mean; by default three heads whose number
    grows as the root of the number of pictures, up to the 3,000 of ImageNet."""
    num_banks: int = 2
    """Embeddings kept of each picture, one for each target view."""
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.num_prototypes and min(self.num_prototypes) < 2:
            raise ValueError(f"num_prototypes {self.num_prototypes}: every head needs at least 2")
        if self.num_banks < 1:
            raise ValueError(
                f"num_banks {self.num_banks} must be at least 1: one for each target view"
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} must be positive: the paper has 0.1")
        check_ranges(self, num_prototypes="[2, 1e7]", num_banks="[1, 100]", temperature="(0, inf)")

    def resolved_prototypes(self, num_images: int) -> tuple[int, ...]:
        """Return the clusters of each head; by default three of a number by the root."""
        if self.num_prototypes:
            return self.num_prototypes
        # 3,000 is the paper's for ImageNet; by the root clusters and pictures of each both grow
        number = round(3000 * math.sqrt(num_images / IMAGENET))
        return (min(3000, max(2, number)),) * 3

    def check(self, facts: TrainingFacts) -> list[str]:
        """Raise a ValueError for more clusters than pictures that the first pass sees."""
        most = max(self.resolved_prototypes(facts.num_images))
        # the last batch of the first pass is dropped, and its pictures have no embedding yet
        num_seen = facts.num_images // facts.global_batch * facts.global_batch
        if num_seen < most:
            raise ValueError(
                f"{most} prototypes for {num_seen} pictures: use --method.num-prototypes "
                f"{max(num_seen // 10, 2)} or so"
            )
        return []


Config = TypeVar("Config", bound=ClusterPredictionConfig)


class ClusterPrediction(Projected[Config]):
    """Prediction of clusters; a method says how they are made."""

    def __init__(self, config: Config, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config, backbone, facts)
        self.num_prototypes = config.resolved_prototypes(facts.num_images)
        # of every head, though DeepCluster-v2 trains none: clusters are exported alike
        self.prototypes = Prototypes(config.head.embed_dim, self.num_prototypes)
        self.clusters = EpochClusters(
            facts.num_images,
            config.head.embed_dim,
            num_prototypes=self.num_prototypes,
            num_banks=config.num_banks,
        )

    @abstractmethod
    def assignments(self, clock: Clock) -> Sequence[Int[Tensor, " rows"]]:
        """Return the cluster of each of ``clusters.rows(head)``, by every head."""

    @torch.no_grad()
    def prepare(self, batches: Iterable[AnyBatch]) -> None:
        """Fill the bank with embeddings of the untrained network, so that epoch 0 has clusters."""
        for batch in batches:
            # in train mode, as the reference does: BatchNorm has no statistics of the data yet
            self.clusters.remember(batch.indices, self.embed(batch)[: batch.num_targets])
            self.clusters.update_bank()

    @torch.no_grad()
    def before_epoch(self, clock: Clock) -> None:
        """Give every picture in the bank its cluster of the epoch."""
        self.clusters.assign(self.assignments(clock))

    def forward(self, batch: AnyBatch, _clock: Clock) -> StepOutput:
        """Return the cross-entropy of all views with the cluster of their picture."""
        embeddings = self.embed(batch)
        # of the training pass: embeddings of now would need a pass over all pictures more
        self.clusters.remember(batch.indices, embeddings[: batch.num_targets])
        assignments = self.clusters.of(batch.indices).to(embeddings.device)
        losses = [
            cluster_prediction(
                # all views, the targets too: the cluster is not made from this step's embeddings
                scores,
                assignment.repeat(len(batch.views)),
                temperature=self.config.temperature,
            )
            for scores, assignment in zip(
                self.prototypes(embeddings.flatten(0, 1)), assignments, strict=True
            )
        ]
        ln_k = torch.tensor(self.num_prototypes).log().mean()
        return StepOutput(torch.stack(losses).mean(), {"ln_k": ln_k, **self.clusters.metrics})

    def before_step(self, _clock: Clock) -> None:
        """Put the prototypes on the unit sphere, where centroids are; remember nothing yet."""
        self.prototypes.normalise()
        self.clusters.forget()

    def after_step(self, _clock: Clock) -> None:
        """Put the embeddings of this step into the bank."""
        self.clusters.update_bank()

    @property
    def cluster_head(self) -> ClusterHead:
        """The first head's prototypes."""
        return ClusterHead(self.projector, self.prototypes, self.config.temperature)
