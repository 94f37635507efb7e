"""SeLa-v2: share all pictures equally between clusters between epochs, and predict them.

Asano et al., "Self-labelling via simultaneous clustering and representation learning", ICLR 2020,
arXiv 1911.05371, with the improvements of Caron et al., NeurIPS 2020, arXiv 2006.09882, appendix
D: SwAV's views, head, temperature and schedule. At the start of each epoch one optimal transport
over all pictures gives every picture one cluster, all clusters equal shares; unlike the centroids
of DeepCluster-v2 the prototypes are learnt by the optimiser.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swav.data.batch import Batch
from swav.engine.objective import Clock, Objective, ObjectiveConfig, StepOutput, TrainingFacts
from swav.methods.deepcluster import check_clusters, check_pictures, resolved_prototypes
from swav.nn.epoch_clusters import EpochClusters
from swav.nn.heads import HeadConfig, embed_views
from swav.nn.prototypes import Prototypes
from swav.ops.assign import sinkhorn
from swav.ops.losses import cluster_prediction


@dataclass(frozen=True, kw_only=True)
class SeLaConfig(ObjectiveConfig):
    """SeLa-v2 (Asano et al., 2020; Caron et al., 2020): Sinkhorn over all pictures each epoch."""

    name: ClassVar[str] = "sela"

    num_prototypes: tuple[int, ...] = ()
    """Clusters of each head, over which the loss is a mean; by default three heads whose number
    grows as the root of the number of pictures, up to the 3,000 of ImageNet."""
    num_banks: int = 2
    """Embeddings kept of each picture, one for each target view."""
    epsilon: float = 0.05
    """Entropy of the assignment before it is made hard (not published for v2: SwAV's)."""
    iterations: int = 10
    """Rounds of Sinkhorn-Knopp over all pictures (not published for v2)."""
    head: HeadConfig = HeadConfig()
    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_clusters(self.num_prototypes, self.num_banks, self.temperature)
        if not self.epsilon > 0:
            raise ValueError(f"epsilon {self.epsilon} must be positive: SwAV uses 0.05")

    def check(self, facts: TrainingFacts) -> list[str]:
        """Raise a ValueError if there are not enough pictures for the clusters."""
        numbers = resolved_prototypes(self.num_prototypes, facts.num_images)
        check_pictures(max(numbers), facts.num_images, facts.global_batch)
        return []

    def build(self, backbone: nn.Module, facts: TrainingFacts) -> "SeLa":
        """Return the objective around ``backbone``."""
        return SeLa(self, backbone, facts)


class SeLa(Objective):
    """Prediction of equal clusters, assigned once an epoch."""

    def __init__(self, config: SeLaConfig, backbone: nn.Module, facts: TrainingFacts) -> None:
        super().__init__(config)
        self.config = config
        self.backbone = backbone
        self.projector = config.head.build(facts.feature_dim)
        self.num_prototypes = resolved_prototypes(config.num_prototypes, facts.num_images)
        self.prototypes = Prototypes(config.head.embed_dim, self.num_prototypes)
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
    def before_epoch(self, _clock: Clock) -> None:
        """Share all pictures equally between the prototypes of each head; keep the largest code."""
        config = self.config
        self.prototypes.normalise()
        shares = []
        for head, weight in enumerate(self.prototypes.parameters()):
            scores = self.clusters.rows(head) @ weight.T
            codes = sinkhorn(scores, epsilon=config.epsilon, iterations=config.iterations)
            shares.append(codes.argmax(dim=1))
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
        """Put the prototypes on the unit sphere; start a step with nothing to remember."""
        self.prototypes.normalise()
        self.clusters.forget()

    def after_step(self, _clock: Clock) -> None:
        """Put the embeddings of this step into the bank."""
        self.clusters.update_bank()

    def cluster(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch prototypes"]:
        """Return the softmax over the first head's prototypes."""
        embeddings = self.projector(features)
        return self.prototypes.probabilities(embeddings, temperature=self.config.temperature)
