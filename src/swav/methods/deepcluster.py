"""DeepCluster-v2: cluster all pictures between epochs, and predict the cluster of each.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
NeurIPS 2020, arXiv 2006.09882, appendix D, after "Deep Clustering for Unsupervised Learning of
Visual Features", ECCV 2018, arXiv 1807.05520. A memory bank keeps the embeddings that training
makes anyway; spherical k-means clusters them at the start of each epoch, and its centroids are
the prototypes of that epoch. So nothing has to be learnt anew when clusters are renumbered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor, nn

from swav.config import check_ranges
from swav.engine.objective import Clock, TrainingFacts
from swav.methods.cluster_prediction import ClusterPrediction, ClusterPredictionConfig
from swav.ops.kmeans import spherical_kmeans


@dataclass(frozen=True, kw_only=True)
class DeepClusterConfig(ClusterPredictionConfig):
    """DeepCluster-v2 (Caron et al., 2020): k-means over a memory bank at each epoch."""

    name: ClassVar[str] = "deepcluster"
    title: ClassVar[str] = "DeepCluster-v2"

    kmeans_iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, kmeans_iterations="[1, 1000]")

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "DeepCluster":
        """Return the objective around ``backbone``."""
        return DeepCluster(self, backbone, facts)


class DeepCluster(ClusterPrediction[DeepClusterConfig]):
    """Prediction of the clusters of the epoch before."""

    def __init__(
        self, config: DeepClusterConfig, backbone: nn.Module, facts: TrainingFacts
    ) -> None:
        super().__init__(config, backbone, facts)
        # the reference freezes them for 300,000 steps, which is longer than its longest run
        self.prototypes.requires_grad_(False)

    def assignments(self, clock: Clock) -> Sequence[Int[Tensor, " rows"]]:
        """Cluster the bank for each head; the centroids become its prototypes."""
        by_head = []
        for head, weight in enumerate(self.prototypes.parameters()):
            centroids, nearest = spherical_kmeans(
                self.clusters.rows(head),
                # random pictures in each epoch, as the reference has it
                self.clusters.start(head, epoch=clock.epoch),
                iterations=self.config.kmeans_iterations,
            )
            weight.copy_(centroids)
            by_head.append(nearest)
        return by_head
